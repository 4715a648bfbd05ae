"""A cell in, a record out.

`cell.run_cell` goes all the way. A cell is built (`build`), its policy's phases are planned (`phases`), what its frozen
stages compute is kept (`frozen`), first calls are made (`warm_up`); then epochs, a fit or inference are timed
(`training`, `fitting`, `inference`). What is finished goes into `findings`, which become the record's fields, so that
an error half-way loses none of it.
"""
