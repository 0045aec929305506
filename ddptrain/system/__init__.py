"""What the operating system is asked for: whole files, locks, processes, temporary folders, statuses. No torch here."""
