"""The one typed program form: types, expressions, statements, kernels, and what reads them."""
