"""The report: one self-contained HTML page (page.py) and the paper's Fig. 6 and 7 as PNGs (figures.py)."""
