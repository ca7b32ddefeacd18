"""Error replies mean what their codes, words, statuses and headers say, in that order."""

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvox import errors
from polyvox.dialects.errors_on_wire import duration, kind_of, make_error, request_id, retry_delay, should_retry

NOW = 1_800_000_000.0


# ---- how long to wait -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, "", 0.25),
        ({"retry-after": "9"}, "try again in 5s", 9.0),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after": " 2 "}, "", 2.0),
        ({"retry-after": "0"}, "try again in 5s", 0.0),
        ({"x-amz-retry-after": "1500"}, "", 1.5),
        ({}, "Rate limit reached. Please try again in 5.289s. Visit the site.", 5.289),
        ({}, "Please retry in 34.25s.", 34.25),
        ({}, "Please try again in 120ms.", 0.12),
        ({}, "in 34s", 34.0),
        ({}, "1m30s", 90.0),
        ({}, "Retry your requests after 2 minutes, please.", 120.0),
        ({}, "the limit resets in 1h2m3.5s", 3723.5),
        ({}, "the answer has 34s and 1m30s in it", None),
        ({}, "try again in a while", None),
        ({}, "try again in 3 sessions", None),
        ({}, "", None),
    ],
)
def test_an_explicit_header_counts_before_the_words_of_the_message(headers, message, seconds):
    assert retry_delay(headers, message) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("nonsense", ["nan", "inf", "-1", "soon", "", "1_0", "1e3", "٣", "9" * 400, "0x10", "1,5"])
@pytest.mark.parametrize("name", ["retry-after-ms", "retry-after", "x-ratelimit-reset-requests"])
def test_nonsense_in_a_header_is_as_if_it_were_not_there(name, nonsense):
    assert retry_delay({name: nonsense}, now=NOW) is None
    assert retry_delay({name: nonsense}, "try again in 3s", now=NOW) == 3.0


def test_a_nonsense_first_header_leaves_the_word_to_the_next():
    assert retry_delay({"retry-after-ms": "nan", "retry-after": "4"}) == 4.0


def test_a_date_counts_only_when_the_time_is_known():
    date = email.utils.formatdate(NOW + 30, usegmt=True)
    assert retry_delay({"retry-after": date}, now=NOW) == pytest.approx(30)
    assert retry_delay({"retry-after": date}) is None


def test_a_date_in_the_past_means_now_and_one_without_a_zone_is_utc():
    assert retry_delay({"retry-after": email.utils.formatdate(NOW - 30, usegmt=True)}, now=NOW) == 0.0
    assert retry_delay({"retry-after": email.utils.formatdate(NOW + 5)}, now=NOW) == pytest.approx(5)


@pytest.mark.parametrize("date", ["Fri, 99 Foo 2026 10:00:00 GMT", "Mon, 01 Jan 99999 00:00:00 GMT", "tomorrow"])
def test_a_date_that_is_none_says_nothing(date):
    assert retry_delay({"retry-after": date}, now=NOW) is None


@pytest.mark.parametrize(
    ("resets", "remaining", "seconds"),
    [
        (("1s", "6m0s"), ("0", "900"), 1.0),
        (("1s", "6m0s"), ("10", "0"), 360.0),
        (("1s", "6m0s"), ("0", "0"), 360.0),
        (("1m30.951s", "7.66s"), (None, None), 90.951),
        (("1s", "6m0s"), ("10", "900"), None),
        (("1s", "6m0s"), ("10", None), 360.0),
        (("1s", "6m0s"), (None, "?"), 360.0),
        (("never", "7.66s"), ("0", "0"), 7.66),
    ],
)
def test_the_reset_of_a_used_up_limit_is_waited_for(resets, remaining, seconds):
    headers = {f"x-ratelimit-reset-{name}": value for name, value in zip(("requests", "tokens"), resets, strict=True)}
    for name, value in zip(("requests", "tokens"), remaining, strict=True):
        if value is not None:
            headers[f"x-ratelimit-remaining-{name}"] = value
    assert retry_delay(headers) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12.0),
        ("250ms", 0.25),
        ("2 minutes", 120.0),
        ("1h", 3600.0),
        ("1 day 2 hrs", 93600.0),
        ("15us", 15e-6),
        ("3 microseconds", 3e-6),
        ("5 fortnights", None),
        ("1m of rest", None),
        ("", None),
    ],
)
def test_a_length_of_time_is_read_whole_or_not_at_all(text, seconds):
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens"]), st.text()),
    st.text(),
)
def test_a_delay_is_finite_and_never_negative_whatever_the_reply_says(headers, message):
    seconds = retry_delay(headers, message, now=NOW)
    assert seconds is None or 0 <= seconds < float("inf")


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("False", False), ("", None), ("maybe", None)])
def test_should_retry_is_true_false_or_unsaid(said, meant):
    assert should_retry({"x-should-retry": said}) is meant
    assert should_retry({}) is None


# ---- what kind of error -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "type", "message", "kind"),
    [
        (400, "context_length_exceeded", "invalid_request_error", "too long", "context_length"),
        (400, None, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", "context_length"),
        (400, None, None, "This model's maximum context length is 8192 tokens.", "context_length"),
        (
            400,
            "400",
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum allowed (8).",
            "context_length",
        ),
        (500, None, None, "the input length exceeds the context length", "context_length"),
        (400, None, None, "Input is too long for requested model.", "context_length"),
        (429, None, None, "Too many tokens, wait. Your input is too long for this minute", "rate_limit"),
        (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota", "quota"),
        (429, None, "insufficient_quota", "", "quota"),
        (429, "429", "RESOURCE_EXHAUSTED", "You exceeded your current quota. Please retry in 34s.", "rate_limit"),
        (401, None, None, "who are you", "auth"),
        (400, "API_KEY_INVALID", "INVALID_ARGUMENT", "no", "auth"),
        (400, None, None, "API key not valid. Please pass a valid API key.", "auth"),
        (403, None, "ExpiredTokenException", "The security token included in the request is expired", "auth"),
        (498, None, None, "invalid token", "auth"),
        (400, None, "invalid_request_error", "Your credit balance is too low to use the API.", "billing"),
        (400, "content_filter", None, "blocked", "content_policy"),
        (403, None, None, "Your input was flagged by moderation", "content_policy"),
        (400, None, None, "refused under our content management policy", "content_policy"),
        (400, "model_not_found", "invalid_request_error", "no such thing", "not_found"),
        (400, None, None, "The provided model identifier is invalid.", "not_found"),
        (400, None, None, "Model nonexistent is not supported. Supported models are ['a', 'b']", "not_found"),
        (404, None, None, "model 'x:latest' not found", "not_found"),
        (400, "unsupported_parameter", "invalid_request_error", "", "unsupported_param"),
        (400, None, None, "Unknown parameter: 'quality'.", "unsupported_param"),
        (400, None, None, "'stop' is not supported with this model.", "unsupported_param"),
        (400, "tool_use_failed", "invalid_request_error", "the model did not call a tool", "invalid_request"),
        (400, None, None, "", "invalid_request"),
        (402, None, None, "", "billing"),
        (403, None, "AccessDeniedException", "You don't have access to the model with this ID.", "permission"),
        (404, None, None, "", "not_found"),
        (408, None, None, "", "timeout"),
        (409, None, None, "", "conflict"),
        (413, None, None, "", "too_large"),
        (418, None, None, "", "invalid_request"),
        (422, None, None, "", "invalid_request"),
        (424, None, "ModelErrorException", "", "server"),
        (429, None, "rate_limit_error", "", "rate_limit"),
        (429, None, "ModelNotReadyException", "", "overloaded"),
        (429, "spend_limit_exceeded", "rate_limit_error", "", "billing"),
        (499, None, None, "", "cancelled"),
        (500, None, None, "", "server"),
        (502, None, None, "", "server"),
        (503, None, None, "", "server"),
        (503, "503", "UNAVAILABLE", "The model is busy", "overloaded"),
        (504, None, None, "", "timeout"),
        (529, None, "overloaded_error", "Overloaded", "overloaded"),
        (599, None, None, "", "server"),
        (500, None, None, "the model `x` does not exist on this node", "server"),
    ],
)
def test_the_first_thing_that_tells_the_kind_counts(status, code, type, message, kind):
    assert kind_of(status, code, type, message) == kind


@pytest.mark.parametrize(
    ("code", "type", "message", "kind"),
    [
        (None, "overloaded_error", "Overloaded", "overloaded"),
        ("rate_limit_exceeded", "tokens", "slow down", "rate_limit"),
        ("429", None, "Provider returned error", "rate_limit"),
        ("503", None, "", "server"),
        (None, "billing_error", "", "billing"),
        ("server_error", None, "", "server"),
        (None, None, "something broke", "server"),
    ],
)
@pytest.mark.parametrize("status", [0, 200])
def test_inside_an_answer_the_code_and_the_name_tell_it(status, code, type, message, kind):
    assert kind_of(status, code, type, message) == kind


@given(st.integers(0, 999), st.none() | st.text(), st.none() | st.text(), st.text())
def test_every_reply_has_a_kind_of_our_tree(status, code, type, message):
    assert kind_of(status, code, type, message) in errors.BY_KIND


def test_a_huge_message_is_looked_at_in_no_time():
    assert kind_of(400, None, None, "model " * 2_000_000) == "invalid_request"


# ---- the error --------------------------------------------------------------------------------


def test_an_error_carries_the_providers_own_words_and_what_to_do():
    error = make_error(
        400,
        {"x-request-id": "req-1"},
        code="unsupported_parameter",
        type="invalid_request_error",
        message="Unsupported parameter: 'stop'.",
        param="stop",
    )
    assert isinstance(error, errors.UnsupportedParamError)
    assert (error.status, error.code, error.type, error.param) == (
        400, "unsupported_parameter", "invalid_request_error", "stop",
    )  # fmt: skip
    assert (error.request_id, error.sent, error.billed, error.retryable) == ("req-1", "yes", False, False)
    assert error.hint is not None and error.hint.startswith("leave out stop")


def test_a_rate_limit_says_how_long():
    error = make_error(429, {"retry-after": "7"}, message="slow down")
    assert isinstance(error, errors.RateLimitError)
    assert error.retryable and error.retry_after == 7.0


def test_the_resets_of_limits_are_no_request_to_wait_for_other_errors():
    resets = {"x-ratelimit-reset-tokens": "6m0s"}
    assert make_error(429, resets).retry_after == 360.0
    assert make_error(400, resets).retry_after is None
    assert make_error(500, {**resets, "retry-after": "2"}).retry_after == 2.0


def test_the_provider_has_the_last_word_on_trying_again():
    assert make_error(429, {"x-should-retry": "false"}).retryable is False
    assert make_error(400, {"x-should-retry": "true"}).retryable is True
    assert make_error(500, {}).retryable is True


def test_an_error_inside_an_answer_has_no_status_and_may_have_cost_something():
    error = make_error(0, {}, type="overloaded_error")
    assert isinstance(error, errors.OverloadedError)
    assert error.status is None and error.billed is None and error.message


def test_a_silent_error_still_says_what_happened():
    assert "503" in make_error(503, {}).message


def test_a_dialect_may_know_better():
    error = make_error(500, {}, message="x", kind="not_found", hint="do this")
    assert isinstance(error, errors.NotFoundError) and error.hint == "do this"


def test_the_id_of_the_request_comes_from_the_first_header_that_has_it():
    assert request_id({"cf-ray": "c", "request-id": "r"}) == "r"
    assert request_id({"cf-ray": "c", "x-amzn-requestid": "a", "x-request-id": ""}) == "a"
    assert request_id({"cf-ray": "c"}) == "c"
    assert request_id({}) is None


@pytest.mark.parametrize("kind", sorted(errors.BY_KIND))
def test_no_hint_has_a_hole_in_it(kind):
    hint = make_error(400, {}, kind=kind).hint
    assert hint is None or "{" not in hint
