"""Tools for testing programs that use language models, and for holding our own decoders to account."""
