"""What would break if MLflow named its tables otherwise: a moved storage would write artifacts into its old folder."""

import sqlite3
from contextlib import closing

from sweeps.tracking.mlflow_private import ADDRESSES, move_artifacts
from sweeps.tracking.mlflow_runs import mlflow_client


def test_the_private_columns_are_there(empty_database):
    with closing(sqlite3.connect(empty_database)) as connection:
        for table, column in ADDRESSES:
            assert column in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}, (table, column)


def test_artifacts_are_found_where_the_storage_lies_now(empty_database, tmp_path):
    old, new, other = tmp_path / "old storage_1", tmp_path / "new storage", tmp_path / "old storage_12"
    old.mkdir()
    (old / "mlflow.db").write_bytes(empty_database.read_bytes())
    client = mlflow_client(f"sqlite:///{old}/mlflow.db")
    ours = client.create_experiment("ours", artifact_location=(old / "artifacts").as_uri())
    theirs = client.create_experiment("theirs", artifact_location=other.as_uri())
    run = client.create_run(ours)
    client.log_text(run.info.run_id, "text", "note.txt")
    old.rename(new)
    move_artifacts(new / "mlflow.db", [old], new)
    client = mlflow_client(f"sqlite:///{new}/mlflow.db")
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    client.log_text(client.create_run(ours).info.run_id, "text", "note.txt")
    assert client.get_experiment(theirs).artifact_location == other.as_uri()
    assert not old.exists()
