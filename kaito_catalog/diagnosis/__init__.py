"""What failed in a start of vLLM and what to change: `answers.diagnose_run` of a log, `diagnose_plan` of a manifest."""
