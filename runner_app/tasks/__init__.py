"""Tasks on files and repositories, as a program that runs where any job does: ``python -m runner_app.tasks``.

It reads its order, a JSON object, on its standard input, prints the result, another, on its standard output, and says
on standard error why there is none. It needs nothing but the standard library, and for git tasks ``git``.
"""
