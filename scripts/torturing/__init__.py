"""Torture for stores: kills, failing disks, power cuts, flipped bits, races and hostile inputs, with figures.

`__main__` shares the time out and prints the table; each kind of torture is a module with a `run(work) -> Figures`.
What several kinds need stands beside them: `figures` (what was found), `work` (time, dice and folders), `forks`
(commands that start within milliseconds), `commands` (what is run on which store) and `look` (what a store answers).
"""
