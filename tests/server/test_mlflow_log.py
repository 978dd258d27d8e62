from typing import Any

from server.mlflow_log import Point, points


def entry(dice: float | None, loss: float, epsilon: float | None = None) -> dict[str, Any]:
    return {"dice": dice, "iou": None, "loss": loss, "seconds": 2.0, "epsilon": epsilon}


RECORD: dict[str, Any] = {
    "round": 1,
    "global_dice": 0.5,
    "worst_site_dice": 0.4,
    "train_loss": 0.9,
    "sites": {"a": entry(0.4, 1.0, 1.5), "b": entry(0.8, 0.8, 2.5)},
    "failed": {"c": "no answer before the deadline"},
    "seconds": 3.0,
    "bytes_down": 30,
    "bytes_up": 20,
}


def test_a_round_becomes_numbers_of_the_federation_and_of_its_sites() -> None:
    numbers = {(point.site, point.metric): point.value for point in points([RECORD], None)}
    federation = {"global_dice": 0.5, "worst_site_dice": 0.4, "mean_site_dice": 0.6000000000000001, "train_loss": 0.9}
    federation |= {"failed_sites": 1, "epsilon": 2.5, "seconds": 3.0, "bytes_down": 30, "bytes_up": 20}
    assert {metric: value for (site, metric), value in numbers.items() if site == ""} == federation
    sites = {name: value for name, value in numbers.items() if name[0]}
    assert sites == {
        ("a", "dice"): 0.4,
        ("a", "loss"): 1.0,
        ("a", "seconds"): 2.0,
        ("a", "epsilon"): 1.5,
        ("b", "dice"): 0.8,
        ("b", "loss"): 0.8,
        ("b", "seconds"): 2.0,
        ("b", "epsilon"): 2.5,
    }


def test_an_unscored_round_has_no_dice_and_no_epsilon_without_privacy() -> None:
    record = RECORD | {"global_dice": None, "worst_site_dice": None, "sites": {"a": entry(None, 1.0)}}
    metrics = {point.metric for point in points([record], None)}
    assert metrics == {"train_loss", "failed_sites", "seconds", "bytes_down", "bytes_up", "loss"}


def test_the_result_is_logged_at_the_last_round() -> None:
    final = {"global_dice": 0.8, "hd95": None, "sites": {"a": {"dice": 0.7}}, "best_round": 1}
    last = list(points([RECORD], {"final": final, "seconds": {"total": 9.0}}))[-4:]
    assert last == [
        Point("", "final_global_dice", 1, 0.8),
        Point("", "final_best_round", 1, 1.0),
        Point("", "seconds_total", 1, 9.0),
        Point("a", "final_dice", 1, 0.7),
    ]
