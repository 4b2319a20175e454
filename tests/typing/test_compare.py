"""The comparison itself; running pyright is for `make check`."""

from ._compare import differences

SOURCE = "good()\nbad()  # error: reportArgumentType\n"


def report(*places, files=1):
    diagnostics = [
        {"file": "f.py", "range": {"start": {"line": line - 1}}, "message": "no", "rule": rule} for line, rule in places
    ]
    return {"summary": {"filesAnalyzed": files}, "generalDiagnostics": diagnostics}


def test_what_is_marked_and_reported_is_as_it_should_be():
    assert differences({"f.py": SOURCE}, report((2, "reportArgumentType"))) == []


def test_two_reports_of_one_rule_on_a_marked_line_are_one():
    assert differences({"f.py": SOURCE}, report((2, "reportArgumentType"), (2, "reportArgumentType"))) == []


def test_a_mark_that_is_not_reported_is_found():
    assert differences({"f.py": SOURCE}, report()) == ["f.py:2: reportArgumentType: expected, but pyright accepts it"]


def test_a_report_without_a_mark_is_found():
    found = differences({"f.py": SOURCE}, report((1, "reportCallIssue"), (2, "reportArgumentType")))
    assert found == ["f.py:1: reportCallIssue: no"]


def test_a_marked_line_reported_under_another_rule_is_found_twice():
    assert len(differences({"f.py": SOURCE}, report((2, "reportCallIssue")))) == 2


def test_a_fixture_that_pyright_did_not_read_is_found():
    assert differences({"f.py": SOURCE}, report(files=0)) == ["pyright looked at 0 files of 1"]
