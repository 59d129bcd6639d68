"""One module a command, each with `run(config)`: they wire configs to the library and hold no method of their own."""
