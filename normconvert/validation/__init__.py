"""The proof that two models compute the same: inputs, noise floor, comparison, localisation, report."""
