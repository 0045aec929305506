"""The page of a run, `report/report.html`: one file that needs nothing else, made from the run folder alone.

parts.py      what a page is made of: lines, tables, charts, pictures; a task says with these what its evaluation found
findings.py   `evaluation.json`, in which they are kept, with metrics and intervals
folder.py     everything else that a run folder tells
svg.py        charts; html.py  tables, matrices, pictures, sections, the frame of a page (page.css, page.js)
single.py     the page of one run; several.py  runs side by side; shared.py  what both show
"""
