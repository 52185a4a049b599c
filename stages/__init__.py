"""One thin module a stage of dvc.yaml, run as `python -m stages.<name>`."""
