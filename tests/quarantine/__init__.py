"""The experiment of docs/quarantine.md: how many innocents are set aside before the killer is."""
