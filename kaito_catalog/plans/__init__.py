"""What is asked of a plan, from a proposal or a command line, and what is recommended."""
