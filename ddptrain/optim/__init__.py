"""Which parameters are updated, how, and at what rate: groups, optimizers, schedules and the moving average."""
