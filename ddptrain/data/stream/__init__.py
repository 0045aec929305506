"""The global stream of samples: which sample stands at which position, as a formula."""
