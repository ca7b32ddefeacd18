"""Promises of the errors: an `except` that is written for any of the documents catches what its document says, and
what is caught is the one error of ours, whole."""

import importlib
import pickle
import pkgutil

import pytest

import polyvox
from polyvox import errors as core
from polyvox.compat import names
from polyvox.compat.errors import documented, named, speaking
from polyvox.errors import PolyvoxError

ROOTS = {names.AIUtilitiesError, names.LLMServiceError, names.AIError}

AI_UTILITIES = {"AIUtilitiesError", "ProviderError", "ProviderConfigurationError", "ProviderAPIError", "ProviderRateLimitError"}  # fmt: skip # noqa: E501
LLM_SERVICE = {"LLMServiceError", "ProviderError", "UnsupportedProviderError", "ValidationError", "TransformationError", "APICallError"}  # fmt: skip # noqa: E501
TTT = {"AIError", "APIKeyError", "ModelNotFoundError", "BackendNotAvailableError", "RateLimitError", "ToolExecutionError", "ConfigurationError"}  # fmt: skip # noqa: E501

PARENTS = {
    "AIUtilitiesError": set(),
    "ProviderError": {"AIUtilitiesError", "LLMServiceError"},
    "ProviderConfigurationError": {"ProviderError", "AIUtilitiesError", "LLMServiceError"},
    "ProviderAPIError": {"ProviderError", "AIUtilitiesError", "LLMServiceError"},
    "ProviderRateLimitError": {"ProviderAPIError", "ProviderError", "AIUtilitiesError", "LLMServiceError"},
    "LLMServiceError": set(),
    "UnsupportedProviderError": {"LLMServiceError"},
    "ValidationError": {"LLMServiceError"},
    "TransformationError": {"LLMServiceError"},
    "APICallError": {"LLMServiceError"},
    "AIError": set(),
    **{name: {"AIError"} for name in TTT - {"AIError"}},
}
"""Each tree as it is printed; the one name that two documents share stands under both roots."""

FAILED = {"ProviderAPIError", "APICallError"}
AWAY = {*FAILED, "BackendNotAvailableError"}
LIMIT = {*FAILED, "ProviderRateLimitError", "RateLimitError"}
KEY = {*FAILED, "APIKeyError"}
WRONG = {"ValidationError"}
CONFIG = {"ProviderConfigurationError", "ValidationError", "ConfigurationError"}

CAUGHT = {
    # A provider answers with an error: AI Utilities, "provider API returns an error"; LLM service, "API call failures".
    "InvalidRequestError": FAILED,
    "ContextLengthError": FAILED,
    "UnsupportedParamError": FAILED,
    "TooLargeError": FAILED,
    "ContentPolicyError": FAILED,
    "RefusalError": FAILED,
    "ConflictError": FAILED,
    "BillingError": FAILED,
    "CallCancelledError": FAILED,
    # TTT has names for some of these: "model doesn't exist", "backend offline", "API rate limits", "missing/invalid
    # API keys". AI Utilities has one for limits.
    "NotFoundError": {*FAILED, "ModelNotFoundError"},
    "ServerError": AWAY,
    "OverloadedError": AWAY,
    "BadResponseError": AWAY,
    "StreamInterruptedError": AWAY,
    "ConnectionFailedError": AWAY,
    "CallTimeoutError": AWAY,
    "RateLimitError": LIMIT,
    "QuotaError": LIMIT,
    "AuthError": KEY,
    "PermissionDeniedError": KEY,
    # Found on this side: "configuration is invalid", "configuration validation", "config issues".
    "InputError": WRONG,
    "LossError": WRONG,
    "ConfigError": CONFIG,
    "MissingExtraError": CONFIG,
    "MissingKeyError": {"ProviderConfigurationError", "APIKeyError"},
    "UnknownModelError": {"ProviderConfigurationError", "ValidationError", "ModelNotFoundError"},
    "UnknownProviderError": {"ProviderConfigurationError", "UnsupportedProviderError", "ConfigurationError"},
    # No document has a word for these; the three roots catch them.
    "PolyvoxError": set(),
    "UsageError": set(),
}
"""By which of their names each error of the core is caught, by the words of the documents. An error that is not here
is what the nearest of its bases is; those that can be somewhere in the tree and are not here fail below."""

ASKED = ["ProviderConfigurationError", "ProviderAPIError", "ProviderRateLimitError", "UnsupportedProviderError", "ValidationError", "TransformationError", "APICallError", *sorted(TTT - {"AIError"})]  # fmt: skip # noqa: E501
"""The names that tell errors apart; all but the roots, and the class that is only a base."""


def every_error():
    """Each error class of the core, wherever it is defined; those of the documents are not among them."""
    for module in pkgutil.walk_packages(polyvox.__path__, "polyvox."):
        if not module.name.startswith(("polyvox.compat", "polyvox.__main__")):
            try:
                importlib.import_module(module.name)
            except ImportError:  # an extra that is not installed here
                continue
    found, ahead = [], [PolyvoxError]
    while ahead:
        kind = ahead.pop()
        found.append(kind)
        ahead += kind.__subclasses__()
    ours = [kind for kind in found if kind.__module__.startswith("polyvox.") and not hasattr(kind, "core")]
    return sorted({kind for kind in ours if kind.__module__ != names.__name__}, key=lambda kind: kind.__qualname__)


ERRORS = [kind for kind in every_error() if not kind.__module__.startswith("polyvox.compat")]
NAMES = [getattr(names, name) for name in sorted(AI_UTILITIES | LLM_SERVICE | TTT)]


def expected(kind):
    return next(CAUGHT[base.__name__] for base in kind.__mro__ if base.__name__ in CAUGHT)


NEEDS = {"UnfitError": {"fault": "invalid_value"}}
"""What cannot be left out where an error of that name is made."""


def bare(kind):
    return kind("it broke", **NEEDS.get(kind.__name__, {}))


def make(kind):
    error = bare(kind)
    error.hint, error.provider, error.model = "mend it", "nobodys", "a-model"
    return error


@pytest.mark.parametrize("name", sorted(PARENTS))
def test_the_trees_are_as_printed(name):
    kind = getattr(names, name)
    assert {base.__name__ for base in kind.__mro__[1:]} & set(PARENTS) == PARENTS[name]
    assert issubclass(kind, PolyvoxError) and "it broke" in str(kind("it broke"))


def test_there_are_no_other_names():
    kinds = {
        name for name, value in vars(names).items() if isinstance(value, type) and value.__module__ == names.__name__
    }
    assert kinds == AI_UTILITIES | LLM_SERVICE | TTT == set(PARENTS)


def test_the_core_has_the_errors_that_are_spoken_of():
    assert set(CAUGHT) <= {kind.__name__ for kind in ERRORS} and len(ERRORS) >= len(CAUGHT)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__qualname__)
@pytest.mark.parametrize("name", ASKED)
def test_who_catches_an_error(kind, name):
    caught = False
    try:
        with speaking():
            raise make(kind)
    except getattr(names, name):
        caught = True
    except PolyvoxError:
        pass
    assert caught == (name in expected(kind))


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__qualname__)
def test_every_root_catches_every_error(kind):
    for root in (*ROOTS, PolyvoxError, kind):
        with pytest.raises(root) as caught, speaking():
            raise make(kind)
        assert caught.value.provider == "nobodys" and "it broke" in str(caught.value)
    # A rate limit of one document is that of the other, and a provider's error is that of both.
    assert issubclass(documented(kind), names.ProviderError) >= issubclass(documented(kind), names.ProviderAPIError)


def test_what_is_no_error_of_ours_goes_through_untouched():
    for theirs in (ValueError("a"), KeyboardInterrupt(), OSError(2, "b")):
        with pytest.raises(type(theirs)) as caught, speaking():
            raise theirs
        assert caught.value is theirs and type(caught.value) is type(theirs)


@pytest.mark.parametrize("kind", [*ERRORS, *NAMES], ids=lambda kind: kind.__qualname__)
def test_a_named_error_is_the_same_object_and_keeps_what_it_knows(kind):
    error = make(kind)
    again = named(error)
    assert again is error and isinstance(error, kind) and type(named(error)) is type(error)
    assert (error.message, error.provider, error.model, error.kind) == ("it broke", "nobodys", "a-model", kind.kind)
    assert type(error).__name__ == kind.__name__ and type(error) is documented(kind)


@pytest.mark.parametrize("kind", [*ERRORS, *NAMES], ids=lambda kind: kind.__qualname__)
def test_an_error_crosses_a_process_border_whole(kind):
    error = named(make(kind))
    error.add_note("a note")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error) and str(back) == str(error) and back.args == error.args
    assert back.describe() == error.describe() and back.__notes__ == ["a note"]
    assert all(isinstance(back, root) for root in ROOTS)


@pytest.mark.parametrize("kind", [*ERRORS, *NAMES], ids=lambda kind: kind.__qualname__)
def test_every_error_says_what_to_do_next(kind):
    assert named(bare(kind)).hint and "hint: " in str(named(bare(kind)))
    assert named(make(kind)).hint == "mend it"


@pytest.mark.parametrize("kind", [core.RateLimitError, names.ProviderRateLimitError, names.RateLimitError])
def test_a_limit_says_for_how_long(kind):
    assert named(kind("slower", retry_after=3.0)).retry_after == 3.0


def test_what_failed_validation_lists_all_of_it():
    one = named(core.InputError("no prompt", param="prompt"))
    assert isinstance(one, ValueError)
    assert one.errors() == [{"type": "invalid_request", "loc": ("prompt",), "msg": "no prompt"}]
    several = named(core.ConfigError("two are wrong", problems=("a is 1", "b is 2")))
    assert [problem["msg"] for problem in several.errors()] == ["a is 1", "b is 2"]


def test_every_interface_has_the_same_classes():
    from polyvox.compat import ai_utilities, ttt
    from polyvox.compat.llm_service.services.llm import exceptions

    for there, its in ((ai_utilities, AI_UTILITIES), (exceptions, LLM_SERVICE), (ttt, TTT)):
        assert {name: getattr(there, name) for name in its} == {name: getattr(names, name) for name in its}
