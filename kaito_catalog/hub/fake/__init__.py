"""Our own Hub over real HTTP, for tests and for trying every command without a network."""
