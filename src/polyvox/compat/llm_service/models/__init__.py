"""The values of the LLM service. They import nothing of its services."""
