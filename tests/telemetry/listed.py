"""What the conventions and the names of metrics list, as of November 2026: written down here a second time on purpose,
with the reason beside each name that is not told."""

REQUIRED = {"gen_ai.operation.name", "gen_ai.provider.name"}
CONDITIONAL = {
    "error.type", "gen_ai.conversation.id", "gen_ai.output.type", "gen_ai.prompt.name", "gen_ai.prompt.version",
    "gen_ai.request.choice.count", "gen_ai.request.model", "gen_ai.request.seed", "gen_ai.request.stream",
    "gen_ai.request.top_k", "server.port",
}  # fmt: skip
RECOMMENDED = {
    "gen_ai.conversation.compacted", "gen_ai.request.frequency_penalty", "gen_ai.request.max_tokens",
    "gen_ai.request.presence_penalty", "gen_ai.request.previous_response.id", "gen_ai.request.reasoning.level",
    "gen_ai.request.stop_sequences", "gen_ai.request.temperature", "gen_ai.request.top_p",
    "gen_ai.response.finish_reasons", "gen_ai.response.id", "gen_ai.response.model",
    "gen_ai.response.time_to_first_chunk", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.reasoning.output_tokens", "server.address",
    *(
        f"gen_ai.usage.{modality}.{tokens}"
        for modality in ("text", "audio", "image")
        for tokens in ("input_tokens", "output_tokens", "cache_read.input_tokens")
    ),
}  # fmt: skip
EMBEDDINGS = {"gen_ai.embeddings.dimension.count", "gen_ai.request.encoding_formats"}
CONTENT = {
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions",
}  # fmt: skip
PROMPT_VARIABLES = {"gen_ai.prompt.variable.<name>"}
OF_ONE_PROVIDER = {
    "openai.request.service_tier", "openai.response.service_tier", "openai.response.system_fingerprint",
    "aws.bedrock.*",
}  # fmt: skip
OF_OTHER_OPERATIONS = {
    *(f"gen_ai.tool.{name}" for name in ("name", "type", "description", "call.id", "call.arguments", "call.result")),
    *(f"gen_ai.agent.{name}" for name in ("id", "name", "description")),
    "gen_ai.workflow.name",
    *(f"gen_ai.retrieval.{name}" for name in ("query.text", "documents", "top_k")),
}
ATTRIBUTES = (
    REQUIRED | CONDITIONAL | RECOMMENDED | EMBEDDINGS | CONTENT | PROMPT_VARIABLES | OF_ONE_PROVIDER
    | OF_OTHER_OPERATIONS
)  # fmt: skip

INFERENCE_METRICS = {
    "gen_ai.client.inference.duration", "gen_ai.client.inference.time_to_first_chunk",
    "gen_ai.client.inference.time_per_output_chunk", "gen_ai.client.inference.usage.input_tokens",
    "gen_ai.client.inference.usage.output_tokens", "gen_ai.client.inference.usage.cache_read.input_tokens",
    "gen_ai.client.inference.usage.cache_write.input_tokens",
    "gen_ai.client.inference.usage.reasoning.output_tokens",
}  # fmt: skip
CHOICE = {
    "gen_ai.client.inference.operation.input_tokens", "gen_ai.client.inference.operation.output_tokens",
}  # fmt: skip
OTHER_METRICS = {
    "gen_ai.client.operation.duration", "gen_ai.invoke_agent.duration", "gen_ai.invoke_agent.inference_calls",
    "gen_ai.invoke_agent.tool_calls", "gen_ai.execute_tool.duration", "gen_ai.invoke_workflow.duration",
}  # fmt: skip
METRICS = INFERENCE_METRICS | CHOICE | OTHER_METRICS
OLDER_METRICS = {
    "gen_ai.client.operation.duration", "gen_ai.client.token.usage", "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.client.operation.time_per_output_chunk",
}  # fmt: skip
EVENTS = {"gen_ai.client.inference.operation.details", "gen_ai.client.operation.exception"}

NO_PROMPTS = "there are no named prompts here"
NOT_APART = "nobody's counts of them are kept apart in a Usage, and what is left over is not said to be text"
NO_OPERATION = "no such operation is made here"
ONE_PROVIDER = "one provider's own, which is in the answer's raw body"
NOT_WHOSE = "on_event does not say which call an event is of, and calls of one task or thread are not told apart by it"
UNTOLD = {
    **dict.fromkeys(("gen_ai.prompt.name", "gen_ai.prompt.version", *PROMPT_VARIABLES), NO_PROMPTS),
    "gen_ai.usage.text.input_tokens": NOT_APART,
    "gen_ai.usage.text.output_tokens": NOT_APART,
    "gen_ai.usage.image.output_tokens": NOT_APART,
    "gen_ai.usage.text.cache_read.input_tokens": NOT_APART,
    "gen_ai.usage.audio.cache_read.input_tokens": NOT_APART,
    "gen_ai.usage.image.cache_read.input_tokens": NOT_APART,
    **dict.fromkeys(OF_ONE_PROVIDER, ONE_PROVIDER),
    **dict.fromkeys(OF_OTHER_OPERATIONS, NO_OPERATION),
    "gen_ai.client.inference.time_per_output_chunk": NOT_WHOSE,
    "gen_ai.client.operation.time_per_output_chunk": NOT_WHOSE,
    **dict.fromkeys(OTHER_METRICS - {"gen_ai.client.operation.duration"}, NO_OPERATION),
}
"""Names of the list that are not told, and why."""
TOLD = ATTRIBUTES - set(UNTOLD)

PROMETHEUS = {
    "requests": {"provider", "model", "route", "status", "kind"},
    "request_duration_seconds": None,
    "time_to_first_token_seconds": None,
    "upstream_duration_seconds": None,
    "overhead_seconds": None,
    "tokens": {"type"},
    "cost_usd": None,
    "cost_unknown": None,
    "retries": None,
    "fallbacks": None,
    "breaker_state": None,
    "in_flight": None,
    "cache_hits": None,
    "cache_misses": None,
    "rate_limited": {"by"},
    "budget_remaining_usd": None,
    "ledger_backlog": None,
    "stream_interrupted": None,
    "config_reload_success": None,
}
"""Names of Prometheus' metrics without "polyvox_" and "_total", and the labels they have at least. Nobody waits in a
queue here, so there is no queue_seconds."""
