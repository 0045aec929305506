"""What a run reports while it trains, and what it leaves behind.

console.py      live line, tables, log.txt (terminal.py draws them); table.py  one table for every reader
timing.py       images per second, share of the time spent waiting for data, time left
trackers/       TensorBoard, Weights & Biases, MLflow: curves, pictures, text
history.py      history.csv, summary.json; metrics_log.py  metrics.jsonl
ledger.py       what the mixture will do and did
pictures.py     boxes on images; masks.py  classes of pixels; panorama.py  pairs of people
report.py       figures of a run; page.py  the HTML page of `ddptrain check`
"""
