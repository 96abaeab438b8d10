"""Reports of searches: what was found, in what way, and what it cost.

`record.read_record` opens a run, `building.build_report` computes all that is told about it, as
JSON; page.py, plots.py and starc/cli/reporting.py show it. Nothing is imported here, as `starc
scale-up` needs only words.py.
"""
