"""What a request or an answer can say, one small example each, in neutral values. The loss matrix says it
in every dialect to every other."""

import base64

from polyvox.types import (
    Audio,
    CacheHint,
    Choice,
    Citation,
    File,
    Image,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Response,
    ResponseFormat,
    Text,
    Thinking,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    Video,
)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n%%EOF\n"
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
# A source that can go back to where it came from: it holds the whole of what its dialect said.
SEARCHED = Citation(
    url="https://example.com", title="E", text="Hi",
    extra={"anthropic.messages": {
        "type": "web_search_result_location", "url": "https://example.com", "title": "E", "cited_text": "Hi",
        "encrypted_index": "aW5kZXg=",
    }},
)  # fmt: skip
# A part that only one dialect knows, and a tool that only its provider runs.
OWN_PART = {
    "openai.chat": ("novel", {"type": "novel"}),
    "anthropic.messages": ("novel", {"type": "novel"}),
    "gemini.generate": ("executableCode", {"executableCode": {"language": "PYTHON", "code": "1"}}),
    "openai.responses": ("novel", {"type": "novel"}),
    "bedrock.converse": ("novel", {"novel": {}}),
    "cohere.chat": ("novel", {"type": "novel"}),
    "ollama.chat": ("tool_call", {"tool_calls": [{"novel": 1}]}),
}
OWN_TOOL = {
    "openai.chat": ("novel", {"type": "novel"}),
    "anthropic.messages": ("web_search_20250305", {"type": "web_search_20250305", "name": "web_search"}),
    "gemini.generate": ("googleSearch", {"googleSearch": {}}),
    "openai.responses": ("web_search", {"type": "web_search"}),
    "bedrock.converse": ("systemTool", {"systemTool": {"name": "nova_grounding"}}),
    "cohere.chat": ("novel", {"type": "novel"}),
    "ollama.chat": ("novel", {"type": "novel"}),
}
LOOK = Tool("look_up", "Looks a city up.", SCHEMA)
WAVE = Tool("wave", "Waves.", {"type": "object", "properties": {}})


def user(*parts, **facts):
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts), **facts)


def assistant(*parts, **facts):
    return Message("assistant", tuple(Text(part) if isinstance(part, str) else part for part in parts), **facts)


def system(*parts):
    return Message("system", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def tool(call_id, *parts, **facts):
    inner = tuple(Text(part) if isinstance(part, str) else part for part in parts)
    return Message("tool", (ToolResult(call_id, inner, **facts),))


def asked(*messages, **fields):
    """A request of this conversation. A limit is always told, as one dialect demands one."""
    return Request("test-model", messages or (user("Hello."),), **{"max_tokens": 1000, **fields})


def called(*results, call=None):
    """A conversation in which the model called a tool and this came back."""
    call = call or ToolCall("call_1", "look_up", '{"city":"Rome"}')
    return asked(user("Where?"), assistant(call), *results, user("And?"), tools=(LOOK,))


def own(kinds, origin):
    """What only the dialect of this origin knows."""
    return Opaque(origin, *kinds.get(origin, ("novel", {"type": "novel"})), origin)


def requests(origin):
    """Every feature of a request by group and name; what is bound to a deployment is bound to origin."""
    signed = Reasoning("Hm.", signature="c2lnbmVk", origin=origin)
    ok = tool("call_1", "Italy")
    return {
        "conversation": {
            "words of the user": asked(),
            "system text": asked(system("Be brief."), user("Hello.")),
            "developer text": asked(Message("developer", (Text("Be brief."),)), user("Hello.")),
            "system text in the middle": asked(user("Hello."), assistant("Hi."), system("Be brief."), user("So?")),
            "several texts in one turn": asked(user("One.", "Two.")),
            "two turns of the user in a row": asked(user("One."), user("Two.")),
            "an answer of the assistant": asked(user("Hello."), assistant("Hi."), user("So?")),
            "an answer begun for the model": asked(user("Hello."), assistant("The answer is")),
            "name of the speaker": asked(user("Hello.", name="ada")),
            "a refusal in the history": asked(user("Do it."), assistant(Refusal("No.")), user("Why?")),
            "words signed by the model": asked(
                user("Hello."), assistant(Text("Hi.", signature="c2ln", origin=origin)), user("So?")
            ),
            "a part of the protocol's own": asked(user("Hello.", own(OWN_PART, origin))),
            "a part of the protocol's own in an answer": asked(
                user("Hello."), assistant("Hi.", own(OWN_PART, origin)), user("So?")
            ),
            "sources in the history": asked(
                user("Hello."),
                assistant(Text("Hi.", citations=(SEARCHED,))),
                user("So?"),
            ),
        },
        "media": {
            "video as data": asked(user("Look.", Video(b"\0\0\0\x18ftypmp42", media_type="video/mp4"))),
            "video by URL": asked(user("Look.", Video(url="https://example.com/a.mp4", media_type="video/mp4"))),
            "image as data": asked(user("Look.", Image(PNG, media_type="image/png"))),
            "image by URL": asked(user("Look.", Image(url="https://example.com/a.png"))),
            "image by file id": asked(user("Look.", Image(file_id="file-1", origin=origin))),
            "detail of an image": asked(user("Look.", Image(url="https://example.com/a.png", detail="high"))),
            "audio as data": asked(user("Hear.", Audio(WAV, media_type="audio/wav"))),
            "audio of the assistant by id": asked(
                user("Say it."), assistant(Audio(file_id="audio_1", origin=origin)), user("Again.")
            ),
            "PDF as data": asked(user("Read.", File(PDF, media_type="application/pdf", name="a.pdf"))),
            "PDF by URL": asked(user("Read.", File(url="https://example.com/a.pdf"))),
            "file by id": asked(user("Read.", File(file_id="file-1", origin=origin))),
            "plain text as a file": asked(user("Read.", File(text="Words."))),
            "title and context of a file": asked(user("Read.", File(text="Words.", name="W", context="Old."))),
        },
        "tools": {
            "function": asked(tools=(LOOK,)),
            "function without parameters": asked(tools=(WAVE,)),
            "strict function": asked(tools=(Tool("look_up", "Looks.", SCHEMA, strict=True),)),
            "tool that the provider runs": asked(tools=(own(OWN_TOOL, origin),)),
            "free-text tool": asked(tools=(Tool("sql", "Runs SQL.", kind="custom"),)),
            "free-text tool with a grammar": asked(
                tools=(
                    Tool(
                        "sql",
                        kind="custom",
                        format={"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}},
                    ),
                )
            ),
            "choice: auto": asked(tools=(LOOK,), tool_choice=ToolChoice("auto")),
            "choice: none": asked(tools=(LOOK,), tool_choice=ToolChoice("none")),
            "choice: any": asked(tools=(LOOK,), tool_choice=ToolChoice("required")),
            "choice: this one": asked(tools=(LOOK, WAVE), tool_choice=ToolChoice("required", ("wave",))),
            "choice: some of them": asked(tools=(LOOK, WAVE), tool_choice=ToolChoice("auto", ("wave",), subset=True)),
            "one call at a time": asked(tools=(LOOK,), parallel_tool_calls=False),
            "call and result": called(ok),
            "call without arguments": called(tool("call_1", "Hi."), call=ToolCall("call_1", "wave", "{}")),
            "call with broken arguments": called(ok, call=ToolCall("call_1", "look_up", '{"city":')),
            "two calls in one turn": asked(
                user("Where?"),
                assistant(ToolCall("call_1", "look_up", '{"city":"Rome"}'), ToolCall("call_2", "wave", "{}")),
                tool("call_1", "Italy"),
                tool("call_2", "Hi."),
                user("And?"),
                tools=(LOOK, WAVE),
            ),
            "words before a call": asked(
                user("Where?"),
                assistant("Wait.", ToolCall("call_1", "look_up", '{"city":"Rome"}')),
                ok,
                user("And?"),
                tools=(LOOK,),
            ),
            "call of a free-text tool": asked(
                user("How many?"),
                assistant(ToolCall("call_1", "sql", "select 1", "custom")),
                tool("call_1", "1"),
                user("And?"),
                tools=(Tool("sql", kind="custom"),),
            ),
            "signed call": called(
                ok, call=ToolCall("call_1", "look_up", '{"city":"Rome"}', signature="c2ln", origin=origin)
            ),
            "failed result": called(tool("call_1", "No such city.", is_error=True)),
            "image in a result": called(tool("call_1", "A map:", Image(PNG, media_type="image/png"))),
            "PDF in a result": called(tool("call_1", "See:", File(PDF, media_type="application/pdf", name="a"))),
            "several texts in a result": called(tool("call_1", "One.", "Two.")),
        },
        "form of the answer": {
            "any JSON object": asked(response_format=ResponseFormat("json")),
            "JSON of a schema": asked(response_format=ResponseFormat("schema", SCHEMA)),
            "JSON of a schema, strictly": asked(response_format=ResponseFormat("schema", SCHEMA, strict=True)),
            "name and description of a schema": asked(
                response_format=ResponseFormat("schema", SCHEMA, "place", "Where it is.")
            ),
            "spoken answer": asked(modalities=("text", "audio"), audio={"voice": "alloy", "format": "wav"}),
            "verbosity": asked(verbosity="low"),
            "several answers": asked(n=2),
            "streamed": asked(stream=True),
        },
        "reasoning": {
            "effort": asked(thinking=Thinking(effort="high")),
            "least effort": asked(thinking=Thinking(effort="minimal")),
            "off": asked(thinking=Thinking(enabled=False)),
            "on": asked(thinking=Thinking(enabled=True)),
            "budget in tokens": asked(thinking=Thinking(enabled=True, budget_tokens=2048), max_tokens=4096),
            "mode of the model's own": asked(thinking=Thinking(enabled=True, mode="between_tools")),
            "earlier reasoning, signed": asked(user("Hello."), assistant(signed, Text("Hi.")), user("So?")),
            "earlier reasoning, encrypted": asked(
                user("Hello."), assistant(Reasoning(encrypted="b3BhcXVl", origin=origin), Text("Hi.")), user("So?")
            ),
            "earlier reasoning, plain": asked(
                user("Hello."), assistant(Reasoning("Hm.", origin=origin), Text("Hi.")), user("So?")
            ),
        },
        "sampling and limits": {
            "temperature": asked(temperature=0.5),
            "top_p": asked(top_p=0.5),
            "top_k": asked(top_k=40),
            "stop sequences": asked(stop=("END",)),
            "seed": asked(seed=7),
            "presence penalty": asked(presence_penalty=0.5),
            "frequency penalty": asked(frequency_penalty=0.5),
            "weights of tokens": asked(logit_bias={"50256": -100}),
            "log-probabilities": asked(logprobs=True),
            "likeliest alternatives": asked(logprobs=True, top_logprobs=2),
        },
        "account and cache": {
            "id of the end user": asked(user="user-7"),
            "tags": asked(metadata={"job": "7"}),
            "service tier auto": asked(service_tier="auto"),
            "service tier flex": asked(service_tier="flex"),
            "key of the prompt cache": asked(cache_key="k"),
            "cache breakpoint": asked(system(Text("Long.", cache=CacheHint())), user("Hello.")),
            "lifetime of a breakpoint": asked(system(Text("Long.", cache=CacheHint("1h"))), user("Hello.")),
            "cache breakpoint on a tool": asked(tools=(Tool("wave", "Waves.", cache=CacheHint()),)),
            "cache breakpoint on an image": asked(
                user("Look.", Image(PNG, media_type="image/png", cache=CacheHint())), assistant("Hi."), user("So?")
            ),
            "cache breakpoint on a result": called(tool("call_1", "Italy", cache=CacheHint())),
            "cache of the whole prompt": asked(cache=CacheHint()),
        },
    }


def answered(*parts, finish="stop", **facts):
    parts = tuple(Text(part) if isinstance(part, str) else part for part in parts)
    usage = facts.pop("usage", Usage(10, 5, source="provider"))
    return Response(Message("assistant", parts), finish, usage=usage, id="answer-1", model="test-model", **facts)


def responses(origin):
    """Every feature of an answer by group and name."""
    call = ToolCall("call_1", "look_up", '{"city":"Rome"}')
    token = TokenLogprob("Hi", -0.5, (72, 105), (TokenLogprob("Ho", -1.5, (72, 111)),))
    return {
        "content": {
            "words": answered("Hi."),
            "no words": answered(),
            "reasoning, plain": answered(Reasoning("Hm.", origin=origin), "Hi."),
            "reasoning, signed": answered(Reasoning("Hm.", signature="c2ln", origin=origin), "Hi."),
            "a part of the protocol's own": answered("Hi.", own(OWN_PART, origin)),
            "words signed by the model": answered(Text("Hi.", signature="c2ln", origin=origin)),
            "signed call": answered(
                ToolCall("call_1", "look_up", "{}", signature="c2ln", origin=origin), finish="tool_calls"
            ),
            "reasoning, encrypted": answered(Reasoning(encrypted="b3Bh", origin=origin), "Hi."),
            "tool call": answered(call, finish="tool_calls"),
            "two tool calls": answered(call, ToolCall("call_2", "wave", "{}"), finish="tool_calls"),
            "words and a call": answered("Wait.", call, finish="tool_calls"),
            "call of a free-text tool": answered(ToolCall("call_1", "sql", "select 1", "custom"), finish="tool_calls"),
            "call with broken arguments": answered(ToolCall("call_1", "look_up", '{"city":'), finish="tool_calls"),
            "refusal": answered(Refusal("No."), finish="refusal"),
            "source with a URL": answered(
                Text("Hi.", citations=(Citation("url", "https://example.com", "Example", start=0, end=2),))
            ),
            "image": answered(Image(PNG, media_type="image/png")),
            "audio": answered(Audio(b"RIFF", file_id="audio_1", transcript="Hi.", origin=origin)),
            "several answers": answered("Hi.", choices=(Choice(Message("assistant", (Text("Ho."),)), "stop", "stop"),)),
            "log-probabilities": answered("Hi", logprobs=(token,)),
        },
        "why it ended": {
            "stop": answered("Hi."),
            "stop sequence": answered("Hi.", stop_sequence="END", raw_finish_reason="stop_sequence"),
            "length": answered("Hi", finish="length"),
            "tool calls": answered(call, finish="tool_calls"),
            "content filter": answered("Hi", finish="content_filter"),
            "refusal without words": answered(finish="refusal"),
            "context overflow": answered("Hi", finish="context_overflow"),
            "pause": answered("Hi", finish="pause"),
            "unknown reason": answered("Hi", finish="unknown", raw_finish_reason="novel"),
        },
        "usage": {
            "input and output": answered("Hi.", usage=Usage(10, 5, source="provider")),
            "read from the cache": answered("Hi.", usage=Usage(10, 5, cache_read=4, source="provider")),
            "written to the cache": answered("Hi.", usage=Usage(10, 5, cache_write=4, source="provider")),
            "cache by lifetime": answered(
                "Hi.", usage=Usage(10, 5, cache_write=4, cache_write_by_ttl={"5m": 1, "1h": 3}, source="provider")
            ),
            "reasoning": answered("Hi.", usage=Usage(10, 5, reasoning=3, source="provider")),
            "images": answered("Hi.", usage=Usage(10, 5, image_input=3, source="provider")),
            "audio": answered("Hi.", usage=Usage(10, 5, audio_input=3, audio_output=1, source="provider")),
            "missing": answered("Hi.", usage=Usage()),
        },
    }
