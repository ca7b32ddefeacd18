"""Which documented promise is proved by which test."""
