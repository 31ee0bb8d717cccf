"""How a student runs: the contract, its card and forms, files, windows, norms; `delta` holds the delta form."""
