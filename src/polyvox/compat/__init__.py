"""The four documented interfaces, by the names their documents give: `polyvox.compat.creative_services`,
`.ai_utilities`, `.llm_service` and `.ttt`. Adapters only: what they do, the core does."""
