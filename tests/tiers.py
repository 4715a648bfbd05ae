"""The tiers: what runs always; what is marked `exhaustive`, the rest of a sweep over a table; what is marked `long`,
which only `.ci/long` runs (``TLBENCH_LONG=1 pytest -m long``), so that a change is tested in less than half an hour.
"""

from collections.abc import Container, Iterable
from typing import Any
from zlib import crc32

import pytest


def sweep(values: Iterable[Any], few: Container[Any]) -> list[Any]:
    """Parameters of a test; all but the few are exhaustive. A value that is a tuple is of several parameters."""
    return [
        value
        if value in few
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.exhaustive)
        for value in values
    ]


LONG = (
    "test_accuracy.py::test_the_whole_table",
    "test_browser.py::test_ten_thousand_configurations",
    "test_caches.py::test_the_seeds_of_a_row_have_one_layout_where_the_cache_cannot_be_written",
    "test_endings.py::test_a_model_that_ends_the_program_is_a_failed_cell[backbone]",
    "test_endings.py::test_images_that_vanish_fail_their_own_cells[backbone]",
    "test_cuda_right.py::test_a_policy_of_many_cuts_can_be_compiled",
    "test_find.py::test_a_race_that_is_killed_goes_on",
    "test_flops.py::test_a_step_counted_from_the_cut_is_the_whole_step[densenet121-",
    "test_flops.py::test_the_forward_pass_in_a_record_is_what_torchvision_publishes[vit_b_16]",
    "test_gate_faults.py::test_a_closed_pipe_does_not_change_the_answer_of_a_gate[form2]",
    "test_keep.py::test_a_format_for_which_there_is_no_room_ends_in_one_line_and_leaves_nothing[onnx]",
    "test_keep.py::test_a_kept_model_predicts_in_a_new_process_what_the_record_says[convnext_tiny-",
    "test_keep.py::test_a_kept_model_predicts_in_a_new_process_what_the_record_says[efficientnet_lite0-",
    "test_keep.py::test_a_kept_model_predicts_in_a_new_process_what_the_record_says[resnet18-",
    "test_keep.py::test_a_kept_model_predicts_in_a_new_process_what_the_record_says[timm:resnet10t",
    "test_keep.py::test_a_kept_model_predicts_in_a_new_process_what_the_record_says[vgg11_bn-",
    "test_left.py::test_the_kept_model_is_the_measured_one_to_the_last_bit[convnext_tiny-",
    "test_left.py::test_the_kept_model_is_the_measured_one_to_the_last_bit[efficientnet_lite0-",
    "test_left.py::test_the_kept_model_is_the_measured_one_to_the_last_bit[timm:resnet10t",
    "test_left.py::test_the_kept_model_is_the_measured_one_to_the_last_bit[vgg11_bn-",
    "test_patience.py::test_lora_is_merged_from_its_best_epoch",
    "test_prefix.py::test_no_policy_takes_activations_that_training_has_moved_on_from[freeze_out]",
    "test_prefix.py::test_no_policy_takes_activations_that_training_has_moved_on_from[gradual]",
    "test_prefix.py::test_the_store_gives_the_losses_of_the_live_path[convnext_tiny-",
    "test_prefix.py::test_the_store_gives_the_losses_of_the_live_path[densenet121-",
    "test_prefix.py::test_the_store_gives_the_losses_of_the_live_path[swin_t-",
    "test_race.py::test_the_best_is_seldom_excluded[0.0-0.003]",
    "test_race.py::test_the_best_is_seldom_excluded[0.0-0.02]",
    "test_race.py::test_the_best_is_seldom_excluded[0.3-0.003]",
    "test_race.py::test_the_best_is_seldom_excluded[0.3-0.02]",
    "test_rates.py::test_with_patience_a_trial_is_what_its_best_epoch_scored",
    "test_ray.py::test_a_signal_keeps_what_is_measured[INT]",
    "test_ray.py::test_no_node_is_left",
    "test_replay.py::test_a_record_comes_out_again_to_the_last_bit[pretrained]",
    "test_resume.py::test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been[1]",
    "test_run.py::test_the_frozen_part_is_the_same_before_and_after[vgg16-",
    "test_shared_cache.py::test_runs_are_killed_whose_results_and_cache_fill_a_small_disk",
    "test_streaming.py::test_losses_are_those_of_images_in_memory_to_the_last_bit[last_1]",
    "test_survival.py::test_a_run_that_is_killed_at_any_moment_keeps_its_records_and_a_whole_report[enough]",
    "test_submitit.py::test_a_job_that_is_interrupted_goes_on_with_what_is_left[the job is told]",
)
"""Beginnings of their names: each is one more of a kind that is tested anyway, or made of simulations that `.ci/long`
runs whole.
"""

SWEPT = ("test_backbones.py::", "test_backbones_timm.py::", "test_policy_matrix.py::")
"""Sweeps over hundreds of models: of what is exhaustive there, every change runs a third, by name, `.ci/long` all."""


def is_long(name: str, exhaustive: bool = False) -> bool:
    """Tells whether a test, by its name in the folder of tests, is too long for every change."""
    name = name.rpartition("tests/")[2]
    return name.startswith(LONG) or (exhaustive and name.startswith(SWEPT) and crc32(name.encode()) % 3 > 0)
