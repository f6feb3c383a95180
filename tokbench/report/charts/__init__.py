"""Plotly charts of the rows of one model, or for accuracy of one family of models.

Each function takes these rows with all batch sizes, modes and seeds, failed rows included, and returns None
if nothing that it shows was measured. A series has the same colour, symbol and dash in all charts. A menu above a chart
switches between batch sizes, modes or keeps. `tokbench.report.html.sections` says where on the page a chart stands.
"""
