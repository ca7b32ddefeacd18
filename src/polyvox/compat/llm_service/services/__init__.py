"""The service layer of the LLM service; see `llm`. It holds nothing itself."""
