"""Start-up logs of vLLM, of versions 0.7 to 0.33, as evidence: `reported.reported_runs` reads one."""
