"""Runs Python programs, each in a process of its own, as often as asked.

Standard input is a JSON list of command lines. Standard output is a JSON list
with what each of them did: its exit status, what it printed, and if that is in
Python's notation, the value. The programs' libraries take seconds to load in
an emulated guest; here that happens once.
"""
import ast
import json
import os
import runpy
import sys
import tempfile

import dasbus.connection  # noqa: F401, loaded for the programs
from staslib import conf, defs  # noqa: F401, likewise


def value(text):
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None


def run(args):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            # What the program raises, the end of this process tells.
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = args
            runpy.run_path(args[0], run_name='__main__')
            sys.exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        printed = out.read().decode()
        return {'status': status, 'stdout': printed, 'stderr': err.read().decode(), 'value': value(printed)}


json.dump([run(args) for args in json.load(sys.stdin)], sys.stdout)
