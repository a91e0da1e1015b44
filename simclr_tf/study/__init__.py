"""The paper's study: grids of runs, trained and judged alike, as a table and a picture."""
