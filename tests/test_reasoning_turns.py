"""A model that reasons and calls tools, over four turns and a real socket: the proofs it minted go back exactly as
they came, to nobody but who minted them, and whatever stays behind is told."""

import json
from typing import NamedTuple

import msgspec
import pytest

from polyvox import Client, Message, Text, ToolResult
from polyvox.config import Settings
from polyvox.dialects import NAMES, Endpoint, Reply, Wire, dialect
from polyvox.dialects.collect import Collector
from polyvox.errors import LossError, PolyvoxError
from polyvox.testing.fault_server import FaultServer, answer
from polyvox.testing.replay import dialect_of
from polyvox.types import File, Opaque, Part, Request, ToolCall
from tests.test_traffic import lines

KEY = "test-key-0123456789"
# Base64 in both alphabets, long, and in the odd spellings JSON allows: `\/` is "/", `\u003d` is "=".
LONG = "EpADCokBCA8YAipAsfSSBF77IhHThF+yK0LNwHzSguDmsvUMcSp" * 60
SIGNED = [rf"Eq{number:x}x\/+A-_{LONG}{number:x}\u003d\u003d" for number in range(12)]
# Arguments as models write them: escapes, letters of every plane, white space and the order of keys.
ODD = r'{"z" : "caf\u00e9 \ud83d\ude42 日本\n\"\\\/\u2028", "a":[1, 2.5, -0.125,true,null], "n":{}}'


# ---- what the provider mints: per turn its items, each as the JSON text it wrote --------------


def thinking(number, text="Let me think…"):
    return f'{{"type":"thinking","thinking":{json.dumps(text)},"signature":"{SIGNED[number]}"}}'


def redacted(number):
    return f'{{"type":"redacted_thinking","data":"{SIGNED[number]}"}}'


def tool_use(number, arguments=ODD):
    return f'{{"type":"tool_use","id":"toolu_0{number}","name":"look","input":{arguments}}}'


WEB = [
    '{"type":"server_tool_use","id":"srvtoolu_01","name":"web_search","input":{"query":"caf\\u00e9"}}',
    (
        '{"type":"web_search_tool_result","tool_use_id":"srvtoolu_01","content":[{"type":"web_search_result",'
        f'"url":"https:\\/\\/example.com","title":"T","page_age":null,"encrypted_content":"{SIGNED[9]}"}}]}}'
    ),
    (
        '{"type":"text","text":"Found.","citations":[{"type":"web_search_result_location","url":"https://example.com",'
        f'"title":"T","cited_text":"c","encrypted_index":"{SIGNED[10]}"}}]}}'
    ),
]
MESSAGES = [
    [thinking(0), tool_use(0)],
    [redacted(1), redacted(2), thinking(3, ""), '{"type":"text","text":"Now this."}', tool_use(1, "{}")],
    [thinking(4, 'A "word",\n日本 🙂'), *WEB, tool_use(2), tool_use(3, '{"b":1,"a":2}')],
    [thinking(5), redacted(6), tool_use(4)],
]


def reasoned(number, *summary, content=()):
    said = ",".join(f'{{"type":"summary_text","text":{json.dumps(text)}}}' for text in summary)
    thought = ",".join(f'{{"type":"reasoning_text","text":{json.dumps(text)}}}' for text in content)
    more = f',"content":[{thought}]' if content else ""
    sealed = f'"encrypted_content":"{SIGNED[number]}"'
    return f'{{"id":"rs_0{number}","type":"reasoning","summary":[{said}]{more},{sealed},"status":"completed"}}'


def function_call(number, arguments=ODD, name="look"):
    facts = f'"id":"fc_0{number}","call_id":"call_0{number}","name":"{name}"'
    return f'{{"type":"function_call",{facts},"arguments":{json.dumps(arguments)},"status":"completed"}}'


SPOKEN = (
    '{"id":"msg_01","type":"message","status":"completed","role":"assistant","phase":"commentary",'
    '"content":[{"type":"output_text","text":"Now \\"this\\" \\ud83d\\ude42.","annotations":[]}]}'
)
SEARCHED = (
    '{"id":"ws_01","type":"web_search_call","status":"completed","action":{"type":"search","query":"caf\\u00e9"}}'
)
RESPONSES = [
    [reasoned(0), function_call(0)],
    [reasoned(1, "**First**", 'then "that"\n日本'), SPOKEN, function_call(1, "{}")],
    [reasoned(2, ""), SEARCHED, reasoned(3), function_call(2), function_call(3, '{"b":1,  "a":2}')],
    [reasoned(4, content=("in plain words",)), function_call(4)],
]


def called(number, signed=None, arguments=ODD):
    proof = f',"thoughtSignature":"{SIGNED[signed]}"' if signed is not None else ""
    return f'{{"functionCall":{{"id":"g{number}","name":"look","args":{arguments}}}{proof}}}'


def worded(text, signed=None):
    proof = f',"thoughtSignature":"{SIGNED[signed]}"' if signed is not None else ""
    return f'{{"text":{json.dumps(text)}{proof}}}'


GEMINI = [
    [called(0, 0)],
    ['{"text":"**Hm**\\n日本","thought":true}', called(1, 1), called(2)],
    [worded("Now “this”.", 2), called(3, 3, "{}")],
    [worded("More."), worded("", 4), called(4, 5)],
]


# ---- how the provider says them ---------------------------------------------------------------


def sse(*events, named=True):
    told = [(f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join(told).encode()


def cut(text, size=7):
    return [text[at : at + size] for at in range(0, len(text), size)]


def messages_whole(items, calls):
    facts = '"id":"msg_1","type":"message","role":"assistant","model":"m","usage":{"input_tokens":1,"output_tokens":1}'
    return f'{{{facts},"content":[{",".join(items)}],"stop_reason":"{"tool_use" if calls else "end_turn"}"}}'.encode()


def messages_streamed(items, calls):
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {}}
    events = [{"type": "message_start", "message": start}]
    for index, text in enumerate(items):
        block = json.loads(text)
        deltas = []
        if block["type"] == "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            block = {**block, "thinking": "", "signature": ""}
        elif block["type"] in ("tool_use", "server_tool_use"):
            raw = text[text.index('"input":') + len('"input":') : -1]
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut(raw)] if raw != "{}" else []
            block = {**block, "input": {}}
        elif block["type"] == "text":
            deltas = [{"type": "text_delta", "text": piece} for piece in cut(block["text"])]
            deltas += [{"type": "citations_delta", "citation": one} for one in block.get("citations", ())]
            block = {**block, "text": ""}
            block.pop("citations", None)
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    reason = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    return sse(*events, {"type": "message_delta", "delta": reason, "usage": {}}, {"type": "message_stop"})


def responses_whole(items, calls):
    facts = '"id":"resp_1","object":"response","created_at":1,"model":"m","status":"completed","error":null'
    return f'{{{facts},"output":[{",".join(items)}]}}'.encode()


def responses_streamed(items, calls):
    whole = json.loads(responses_whole(items, calls))
    events = [{"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}]
    for index, item in enumerate(whole["output"]):
        at = {"output_index": index, "item_id": item["id"]}
        begun, deltas = {**item, "status": "in_progress"}, []
        if item["type"] == "reasoning":
            # What is sealed is sealed anew for each event: the one of the finished item goes back.
            begun |= {"summary": [], "encrypted_content": "sealed-when-it-began"}
            for number, piece in enumerate(item["summary"]):
                kind = "response.reasoning_summary_text.delta"
                deltas += [
                    {"type": kind, **at, "summary_index": number, "delta": text} for text in cut(piece["text"]) if text
                ]
        elif item["type"] == "function_call":
            begun["arguments"] = ""
            kind = "response.function_call_arguments.delta"
            deltas = [{"type": kind, **at, "delta": piece} for piece in cut(item["arguments"])]
        elif item["type"] == "message":
            begun["content"] = []
            text = item["content"][0]["text"]
            kind = "response.output_text.delta"
            deltas = [{"type": kind, **at, "content_index": 0, "delta": piece} for piece in cut(text)]
        events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        events += [*deltas, {"type": "response.output_item.done", "output_index": index, "item": item}]
    return sse(*events, {"type": "response.completed", "response": whole})


def gemini_whole(items, calls):
    content = f'{{"role":"model","parts":[{",".join(items)}]}}'
    return f'{{"candidates":[{{"content":{content},"finishReason":"STOP"}}],"responseId":"r1"}}'.encode()


def gemini_streamed(items, calls):
    ends = [""] * (len(items) - 1) + [',"finishReason":"STOP"']
    pieces = [
        f'data: {{"candidates":[{{"content":{{"role":"model","parts":[{item}]}}{end}}}],"responseId":"r1"}}\r\n\r\n'
        for item, end in zip(items, ends, strict=True)
    ]
    return "".join(pieces).encode()


def messages_minted(body):
    return [block for turn in body["messages"] if turn["role"] == "assistant" for block in content_of(turn)]


def content_of(turn):
    return [{"type": "text", "text": turn["content"]}] if isinstance(turn["content"], str) else turn["content"]


def responses_minted(body):
    theirs = ("function_call_output", "custom_tool_call_output")
    items = [item for item in body["input"] if item.get("role") != "user" and item.get("type") not in theirs]
    # That a call is complete goes without saying; all else it says goes back.
    return [{"status": "completed", **item} if item.get("type") == "function_call" else item for item in items]


def gemini_minted(body):
    return [part for turn in body["contents"] if turn["role"] == "model" for part in turn["parts"]]


class Protocol(NamedTuple):
    dialect: str
    turns: list
    whole: object
    streamed: object
    minted: object  # what of a request's body the provider once said
    final: str  # an item that says "Done."


PROTOCOLS = [
    Protocol("anthropic.messages", MESSAGES, messages_whole, messages_streamed, messages_minted,
             '{"type":"text","text":"Done."}'),
    Protocol("openai.responses", RESPONSES, responses_whole, responses_streamed, responses_minted,
             '{"id":"msg_9","type":"message","status":"completed","role":"assistant",'
             '"content":[{"type":"output_text","text":"Done.","annotations":[]}]}'),
    Protocol("gemini.generate", GEMINI, gemini_whole, gemini_streamed, gemini_minted, '{"text":"Done."}'),
]  # fmt: skip
EACH = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.dialect)
BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
NEXT = {one.dialect: PROTOCOLS[(place + 1) % len(PROTOCOLS)] for place, one in enumerate(PROTOCOLS)}


class Providers:
    """Two providers of one protocol, `home` and `away`, and one of another, `abroad`; all on one server, which gives
    its answers in order and keeps what it was asked."""

    def __init__(self, protocol, abroad=None):
        self.answers = []
        self.server = FaultServer(self.step)
        self.protocols = {"home": protocol, "away": protocol, "abroad": abroad or NEXT[protocol.dialect]}

    async def step(self, connection):
        body, kind = self.answers.pop(0)
        await answer(body, f"content-type: {kind}")(connection)

    def __enter__(self):
        self.server.__enter__()
        rows = {
            name: {"base_url": f"{self.server.url}{name}", "dialect": one.dialect, "api_key": KEY}
            for name, one in self.protocols.items()
        }
        self.client = Client(settings=Settings(providers=rows), retries=0, timeout=20)
        return self

    def __exit__(self, *_):
        self.client.close()
        self.server.__exit__()

    def say(self, protocol, items, *, streamed=False, calls=False):
        make = protocol.streamed if streamed else protocol.whole
        self.answers.append((make(items, calls), "text/event-stream" if streamed else "application/json"))

    def asked(self, place=-1):
        """The body of a request, as it came over the socket."""
        return self.server.requests[place].partition(b"\r\n\r\n")[2]

    def ask(self, history, model, *, streamed=False, **options):
        if not streamed:
            return self.client.ask(history, model=model, **options)
        stream = self.client.stream(history, model=model, **options)
        list(stream)
        return stream.response

    def four_turns(self, *, streamed=False, model="home/m"):
        """The conversation after four turns with tools and a last answer."""
        protocol = self.protocols["home"]
        chat = self.client.chat(model=model)
        prompt = "Look around."
        for items in [*protocol.turns, [protocol.final]]:
            self.say(protocol, items, streamed=streamed, calls=items != [protocol.final])
            if streamed:
                stream = chat.stream(prompt)
                words = "".join(stream)
                response = stream.response
                assert words == response.text, "signed words are words too"
            else:
                response = chat.ask(prompt)
            prompt = [Message("tool", tuple(ToolResult(call.id, (Text("seen"),)) for call in response.tool_calls))]
        return chat.messages


def items_of(turns):
    return [json.loads(item) for items in turns for item in items]


def secrets_in(value):
    """Every string that only its maker can read, wherever it stands."""
    if isinstance(value, dict):
        names = {"signature", "encrypted_content", "encrypted_index", "thoughtSignature"}
        names |= {"data"} if value.get("type") == "redacted_thinking" else set()
        found = [item for name, item in value.items() if name in names and isinstance(item, str) and item]
        return found + [one for item in value.values() for one in secrets_in(item)]
    return [one for item in value for one in secrets_in(item)] if isinstance(value, list) else []


def bound_parts(history):
    """The parts that hold something minted by home, with their places."""
    return [
        (f"messages[{i}].parts[{j}]", part)
        for i, message in enumerate(history)
        for j, part in enumerate(message.parts)
        if getattr(part, "origin", None) == "home/m"
    ]


# ---- home -------------------------------------------------------------------------------------


@EACH
@BOTH
def test_what_a_model_minted_in_each_of_four_turns_goes_back_exactly_and_in_order(protocol, streamed):
    with Providers(protocol) as providers:
        providers.four_turns(streamed=streamed)
        assert len(providers.server.requests) == 5
        for turn in range(5):
            sent = providers.asked(turn)
            minted = items_of(protocol.turns[:turn])
            assert protocol.minted(json.loads(sent)) == minted
            for secret in secrets_in(minted):
                assert secret.encode() in sent


@EACH
def test_each_result_follows_the_turn_that_called_for_it(protocol):
    with Providers(protocol) as providers:
        providers.four_turns()
        told = providers.asked().decode()
    calls = next(name for name in ("toolu_0", "call_0", "g") if f'"{name}0"' in told)
    places = [[at for at in range(len(told)) if told.startswith(f'"{calls}{number}"', at)] for number in range(5)]
    assert all(len(found) == 2 for found in places)
    assert [made for made, _ in places] == sorted(made for made, _ in places)
    assert all(answered < places[number + 2][0] for number, (_, answered) in enumerate(places[:3]))


@EACH
@BOTH
def test_a_conversation_that_was_written_down_and_read_again_is_the_same_to_its_maker(protocol, streamed):
    with Providers(protocol) as providers:
        history = providers.four_turns(streamed=streamed)
        kept = msgspec.json.decode(msgspec.json.encode(history), type=tuple[Message, ...])
        assert kept == history
        providers.say(protocol, [protocol.final])
        providers.ask((*kept, Message("user", (Text("And?"),))), "home/m")
        sent = protocol.minted(json.loads(providers.asked()))
        assert sent[: len(items_of(protocol.turns))] == items_of(protocol.turns)


# ---- a switch ---------------------------------------------------------------------------------


@EACH
@BOTH
@pytest.mark.parametrize("model", ["away/m", "home/other-model", "abroad/m"])
def test_on_a_switch_nothing_that_was_minted_elsewhere_is_sent_and_each_piece_is_told(protocol, streamed, model):
    with Providers(protocol) as providers:
        history = (*providers.four_turns(streamed=streamed), Message("user", (Text("And?"),)))
        target = providers.protocols[model.partition("/")[0]]
        providers.say(target, [target.final], streamed=streamed)
        response = providers.ask(history, model, streamed=streamed)
        sent = providers.asked().decode()
        assert response.text == "Done."
        assert [secret for secret in secrets_in(items_of(protocol.turns)) if secret in sent] == []
        assert "sealed-when-it-began" not in sent
        bound = bound_parts(history)
        assert len(bound) >= 5
        told = {loss.field: loss for loss in response.losses}
        silent = [place for place, _ in bound if not any(field.startswith(place) for field in told)]
        assert silent == []
        # What everybody can read is still there.
        assert sent.count("caf") >= 2 and "seen" in sent and "Look around." in sent


@EACH
@pytest.mark.parametrize("model", ["away/m", "home/other-model", "abroad/m"])
def test_under_strict_a_switch_that_would_lose_reasoning_is_refused_before_anything_is_sent(protocol, model):
    with Providers(protocol) as providers:
        history = (*providers.four_turns(), Message("user", (Text("And?"),)))
        before = len(providers.server.requests)
        with pytest.raises(LossError) as caught:
            providers.ask(history, model, strict=True)
        assert len(providers.server.requests) == before
        told = [loss for loss in caught.value.losses if "home/m" in loss.why or "reasoning" in loss.field]
        assert told and all(loss.severity == "loss" for loss in caught.value.losses)


@EACH
def test_the_maker_loses_nothing_under_strict(protocol):
    with Providers(protocol) as providers:
        history = (*providers.four_turns(), Message("user", (Text("And?"),)))
        providers.say(protocol, [protocol.final])
        assert providers.ask(history, "home/m", strict=True).text == "Done."


# ---- and back ---------------------------------------------------------------------------------


@EACH
@BOTH
@pytest.mark.parametrize("model", ["away/m", "abroad/m"])
def test_back_home_a_model_gets_its_own_again_and_nothing_of_where_the_talk_has_been(protocol, streamed, model):
    with Providers(protocol) as providers:
        history = providers.four_turns(streamed=streamed)
        target = providers.protocols[model.partition("/")[0]]
        theirs = [item.replace("Eq", "Zz") for item in target.turns[0]]
        history = (*history, Message("user", (Text("Elsewhere?"),)))
        providers.say(target, theirs, streamed=streamed, calls=True)
        visited = providers.ask(history, model, streamed=streamed)
        (call,) = visited.tool_calls
        result = Message("tool", (ToolResult(call.id, (Text("seen there"),)),))
        history = (*history, visited.message, result)
        providers.say(protocol, [protocol.final], streamed=streamed)
        response = providers.ask(history, "home/m", streamed=streamed)
        sent = providers.asked().decode()
        minted = items_of(protocol.turns)
        assert protocol.minted(json.loads(sent))[: len(minted)] == minted
        assert "Zz" not in sent and "seen there" in sent
        place = f"messages[{len(history) - 2}]"
        assert any(loss.field.startswith(place) and model in loss.why for loss in response.losses)


# ---- one piece of state at a time -------------------------------------------------------------


@EACH
@pytest.mark.parametrize("model", ["away/m", "home/other-model", "abroad/m"])
def test_each_kind_of_proof_alone_is_a_loss_that_strict_refuses(protocol, model):
    with Providers(protocol) as providers:
        history = providers.four_turns()
        kinds = {(type(part), bool(getattr(part, "signature", None))): part for _, part in bound_parts(history)}
        for part in kinds.values():
            said = (Message("user", (Text("hi"),)), *turn_with(part), Message("user", (Text("And?"),)))
            with pytest.raises(LossError) as caught:
                providers.ask(said, model, strict=True)
            assert any(loss.field.startswith("messages[1].parts[0]") for loss in caught.value.losses), part


def turn_with(part):
    """A turn of the assistant that holds this part, and the results its calls want."""
    turn = Message("assistant", (part, Text("So.")))
    results = (ToolResult(part.id, (Text("seen"),)),) if isinstance(part, ToolCall) else ()
    return (turn, Message("tool", results)) if results else (turn,)


@EACH
def test_an_uploaded_file_is_named_to_the_server_that_keeps_it_and_to_no_other(protocol):
    name = "https://generativelanguage.googleapis.com/v1beta/files/abc" if "gemini" in protocol.dialect else "file-abc"
    there = File(file_id=name, media_type="application/pdf", origin="home/m")
    with Providers(protocol) as providers:
        for model, goes in (("home/m", True), ("away/m", False), ("home/other-model", False), ("abroad/m", False)):
            target = providers.protocols[model.partition("/")[0]]
            providers.say(target, [target.final])
            response = providers.ask([Message("user", (Text("Read it."), there))], model)
            assert (name in providers.asked().decode()) is goes
            told = [loss for loss in response.losses if "home/m" in loss.why and loss.severity == "loss"]
            assert [loss.field.startswith("messages[0].parts[1]") for loss in told] == ([] if goes else [True])


SERVED = {
    "openai.responses": {"previous_response_id": "resp_1"},
    "anthropic.messages": {"container": "container_011"},
    "gemini.generate": {"cachedContent": "cachedContents/c1"},
}


@EACH
def test_what_a_server_keeps_is_named_to_it_and_its_absence_elsewhere_is_a_loss(protocol):
    (key, value), extra = next(iter(SERVED[protocol.dialect].items())), {protocol.dialect: SERVED[protocol.dialect]}
    asked = Request("home/m", (Message("user", (Text("And?"),)),), extra=extra)
    with Providers(protocol) as providers:
        providers.say(protocol, [protocol.final])
        assert providers.ask(asked, "home/m", strict=True).deployment == "home/m"
        assert json.loads(providers.asked())[key] == value
        providers.say(NEXT[protocol.dialect], [NEXT[protocol.dialect].final])
        response = providers.ask(asked, "abroad/m")
        assert value not in providers.asked().decode()
        assert f"extra.{protocol.dialect}.{key}" in [loss.field for loss in response.losses if loss.severity == "loss"]
        with pytest.raises(LossError, match=key):
            providers.ask(asked, "abroad/m", strict=True)


def test_an_answer_tells_its_id_and_its_container_beside_the_deployment_that_minted_them():
    (protocol,) = [one for one in PROTOCOLS if one.dialect == "anthropic.messages"]
    body = json.loads(protocol.whole([protocol.final], False))
    kept = {"id": "container_011", "expires_at": "2026-12-01T00:00:00Z"}
    with Providers(protocol) as providers:
        providers.answers.append((json.dumps({**body, "container": kept}).encode(), "application/json"))
        response = providers.ask("hi", "home/m")
    assert (response.id, response.deployment) == ("msg_1", "home/m")
    assert response.extra == {protocol.dialect: {"container": kept}}


def test_a_call_made_by_a_program_elsewhere_goes_without_its_program_and_the_answer_to_a_lost_call_is_told():
    program = {"type": "server_tool_use", "id": "srvtoolu_7", "name": "code_execution", "input": {"code": "look()"}}
    newer = {"type": "newer_tool_use", "id": "newtool_1", "name": "look"}
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_7"}
    extra = {"anthropic.messages": {"caller": caller}}
    turn: tuple[Part, ...] = (
        *(Opaque("anthropic.messages", block["type"], block, "home/m") for block in (program, newer)),
        ToolCall("toolu_1", "look", "{}", extra=extra),
    )
    results = (ToolResult("toolu_1", (Text("seen"),)), ToolResult("newtool_1", (Text("seen too"),)))
    history = [Message("user", (Text("Go."),)), Message("assistant", turn), Message("tool", results)]
    (protocol,) = [one for one in PROTOCOLS if one.dialect == "anthropic.messages"]
    with Providers(protocol) as providers:
        providers.say(protocol, [protocol.final])
        providers.ask(history, "home/m", strict=True)
        (first, second, third), results = messages_minted(body := json.loads(providers.asked())), body["messages"][2]
        assert (first, second, third["caller"], len(results["content"])) == (program, newer, caller, 2)
        providers.say(protocol, [protocol.final])
        response = providers.ask(history, "away/m")
        (only,), results = messages_minted(body := json.loads(providers.asked())), body["messages"][2]
        assert only == {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
        assert [block["tool_use_id"] for block in results["content"]] == ["toolu_1"]
        told = [loss.field for loss in response.losses if loss.severity == "loss"]
        assert told == [f"messages[1].parts[{n}].{what}" for n, what in enumerate(("opaque", "opaque", "caller"))] + [
            "messages[2].parts[1]"
        ]


# ---- through us -------------------------------------------------------------------------------


@EACH
def test_a_clients_own_history_is_bound_to_where_it_is_answered(protocol):
    with Providers(protocol) as providers:
        providers.four_turns()
        room, minted = dialect(protocol.dialect), items_of(protocol.turns)
        path = "/v1beta/models/m:generateContent" if protocol.dialect == "gemini.generate" else "/"
        read = room.decode_request(Wire(path, providers.asked(), {}), Endpoint(origin="home/m"))
        again, losses = room.encode_request(read, Endpoint(origin="home/m"))
        # Clients write base64 in either alphabet, and what they wrote is told in the one the provider minted it in.
        went = protocol.minted(json.loads(again.body))
        told, wanted = (json.loads(json.dumps(items).replace("A-_", "A+/")) for items in (went, minted))
        assert (told, losses) == (wanted, ())
        for name in NAMES:
            wire, losses = dialect(name).encode_request(read, Endpoint(origin="away/m"))
            assert [secret for secret in secrets_in(minted) if secret.encode() in wire.body] == [], name
            places = [place for place, _ in bound_parts(read.messages)]
            assert len(places) >= 5
            assert [place for place in places if not any(loss.field.startswith(place) for loss in losses)] == [], name


# ---- as recorded ------------------------------------------------------------------------------


def recorded():
    """The answers of the three protocols that hold a proof: the protocol, the message, and its proofs on the wire."""
    known = {protocol.dialect: protocol for protocol in PROTOCOLS}
    for exchange in lines("dev.jsonl"):
        protocol, text = known.get(dialect_of(exchange["url"] or "")), exchange["response_text"]
        if protocol is None or exchange["status"] != 200 or "data: [" in text[:7] or text.startswith("["):
            continue
        room, at = dialect(protocol.dialect), Endpoint(origin="home/m")
        if exchange["streamed"]:
            events = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:") and "{" in line]
            # A proof that is sealed anew for each event is the one of the finished item.
            sealed = [event for event in events if event.get("type") == "response.output_item.done"] or events
            reader, collector = room.reader(at), Collector()
            for event in [*reader.feed(text.encode()), *reader.close()]:
                collector.add(event)
            response = collector.response()
        else:
            sealed = json.loads(text)
            try:
                response = room.decode_response(Reply(200, {}, text.encode()), at)
            except PolyvoxError:
                continue
        if response.complete and response.finish_reason != "unknown" and secrets_in(sealed):
            yield exchange["id"], protocol, response.message, secrets_in(sealed)


def asked_again(name, message, origin):
    """What is sent when a conversation goes on behind this message."""
    results = tuple(ToolResult(part.id, (Text("seen"),)) for part in message.parts if isinstance(part, ToolCall))
    turns = (Message("user", (Text("hi"),)), message, *((Message("tool", results),) if results else ()))
    asked = Request("m", (*turns, Message("user", (Text("And?"),))))
    return dialect(name).encode_request(asked, Endpoint(origin=origin))


def test_every_recorded_proof_goes_back_to_its_maker_and_to_nobody_else():
    seen = {protocol.dialect: 0 for protocol in PROTOCOLS}
    for where, protocol, message, proofs in recorded():
        wire, losses = asked_again(protocol.dialect, message, "home/m")
        assert sorted(secrets_in(json.loads(wire.body))) == sorted(proofs), where
        assert [loss for loss in losses if loss.severity == "loss"] == [], where
        for name, origin in ((protocol.dialect, "away/m"), (NEXT[protocol.dialect].dialect, "abroad/m")):
            wire, losses = asked_again(name, message, origin)
            assert [proof for proof in proofs if proof.encode() in wire.body] == [], where
            told = [loss.why for loss in losses if loss.field.startswith("messages[1]") and loss.severity == "loss"]
            assert any("home/m" in why or protocol.dialect in why for why in told), (where, name)
        seen[protocol.dialect] += 1
    assert all(count >= 10 for count in seen.values()), seen
