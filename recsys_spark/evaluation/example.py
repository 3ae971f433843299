"""One user's lists beside what the user had, in words: numbers alone do not show whether a list makes sense."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.columns import CATEGORY, ITEM_ID, MODEL, RANK, SCORE, TASK, TITLE, USER_ID, Task
from recsys_spark.evaluation.run_results import ExampleUser, ListedItem

MEDIAN = "median"
_HISTORY_LENGTH = 20


def example_user(
    wanted: str, before: DataFrame, after: DataFrame, recommendations: DataFrame, labels: DataFrame | None, k: int
) -> ExampleUser | None:
    """Collect one user's history, truth and top-k lists with labels; null when the user has no lists. Runs Spark jobs.

    wanted is a user id, or "median" for the user of median activity among those with events before and after the cutoff
    (ties by id). labels holds item_id, title, category; items without a title go by their id.
    """
    user_id = _user_of_median_activity(before, after) if wanted == MEDIAN else wanted
    listed = (
        recommendations.where((F.col(USER_ID) == user_id) & (F.col(RANK) <= k)).orderBy(TASK, MODEL, RANK).collect()
    )
    if user_id is None or not listed:
        return None
    of_user = F.col(USER_ID) == user_id
    times = F.count("*").alias("times")
    had = before.where(of_user & F.col(ITEM_ID).isNotNull()).groupBy(ITEM_ID).agg(times)
    history = {row[ITEM_ID]: row["times"] for row in had.orderBy(F.desc("times"), ITEM_ID).collect()}
    came = sorted(
        row[0] for row in after.where(of_user & F.col(ITEM_ID).isNotNull()).select(ITEM_ID).distinct().collect()
    )
    truth = {Task.NEXT: came, Task.DISCOVERY: [item for item in came if item not in history]}
    label = _labels_of({*history, *came, *(row[ITEM_ID] for row in listed)}, labels)
    lists: dict[tuple[str, str], tuple[ListedItem, ...]] = {}
    for row in listed:
        item_id = row[ITEM_ID]
        entry = ListedItem(item_id, label[item_id], row[SCORE], item_id in truth[row[TASK]])
        lists[row[TASK], row[MODEL]] = (*lists.get((row[TASK], row[MODEL]), ()), entry)
    return ExampleUser(
        user_id=user_id,
        history=tuple((label[item_id], times) for item_id, times in list(history.items())[:_HISTORY_LENGTH]),
        lists=lists,
        truth={task: tuple(label[item_id] for item_id in items) for task, items in truth.items()},
    )


def _user_of_median_activity(before: DataFrame, after: DataFrame) -> str | None:
    active = before.join(after.select(USER_ID).distinct(), on=USER_ID, how="left_semi").groupBy(USER_ID).count()
    users = active.orderBy("count", USER_ID)
    num_users = users.count()
    found = users.offset(num_users // 2).limit(1).collect()
    return str(found[0][USER_ID]) if found else None


def _labels_of(item_ids: set[str], labels: DataFrame | None) -> dict[str, str]:
    names = {item_id: item_id for item_id in item_ids}
    if labels is None:
        return names
    for row in labels.where(F.col(ITEM_ID).isin(sorted(item_ids))).collect():
        parts = [part for part in (row[TITLE], row[CATEGORY]) if part]
        names[row[ITEM_ID]] = " · ".join(parts) or row[ITEM_ID]
    return names
