"""The verdict's sentence in every case it distinguishes."""

import pytest

from gradwire.analysis.comparison import Comparison, Row, compare
from gradwire.analysis.verdict import verdict

from .test_analysis_data import BF16, DENSE, TOPK, scheme, synthetic

QSGD = "qsgd(bits=4)"


def row(name, exposed_s=0.08, codec_s=0.0, steps=100, final=0.95, status="completed", source="published figure"):
    """Return a row whose step computes for 20 ms, without speed-ups."""
    step_s = 0.02 + codec_s + exposed_s
    return Row(
        scheme=name,
        uncompressed=name.startswith("dense"),
        sent_bytes=1e6,
        compute_s=0.02,
        codec_s=codec_s,
        exposed_communication_s=exposed_s,
        step_s=step_s,
        steps_to_target=steps,
        time_to_target_s=None if steps is None else steps * step_s,
        final_metric=final,
        completed_steps=1000,
        status=status,
        cost_source=source,
    )


def say(*rows, target=0.9, metric="accuracy", higher_is_better=True):
    """Return the verdict on rows, of which the first is the baseline if it is a completed dense one."""
    base = rows[0] if rows[0].uncompressed and rows[0].completed else None

    def with_speedups(one):
        if base is None:
            return one
        both = base.time_to_target_s and one.time_to_target_s
        ratio = base.time_to_target_s / one.time_to_target_s if both else None
        return Row(**vars(one) | {"speedup": ratio, "step_speedup": base.step_s / one.step_s})

    finished = tuple(map(with_speedups, rows))
    baseline = None if base is None else finished[0]
    return verdict(Comparison(metric, higher_is_better, target, 1000, baseline, finished, ()))


def test_compress():
    assert say(row(BF16), row(TOPK, exposed_s=0, steps=80, final=0.946)) == (
        "Compress: ef(topk(density=0.01)) reaches 90 % validation accuracy in 1.60 s of virtual time, "
        "6.2 times sooner than dense(dtype=bf16), because 80 % of the dense(dtype=bf16) step is exposed communication; "
        "its final test accuracy is 0.4 points lower (94.6 %)."
    )


@pytest.mark.parametrize(
    ("final", "words"),
    [
        (0.9504, "is the same (95.0 %)"),
        (0.9496, "is the same (95.0 %)"),
        (0.9512, "is 0.1 points higher (95.1 %)"),
        (None, "is not known"),
    ],
)
def test_compress_and_the_accuracy(final, words):
    assert say(row(BF16), row(TOPK, exposed_s=0, final=final)).endswith(f"; its final test accuracy {words}.")


def test_compress_by_a_few_percent():
    assert "in 9.50 s of virtual time, 5 % sooner than" in say(row(DENSE), row(TOPK, exposed_s=0.075))


def test_compress_because_of_fewer_steps():
    assert ", because it needs 50 steps instead of 100; " in say(row(DENSE), row(TOPK, exposed_s=0.079, steps=50))


def test_compress_at_an_estimated_cost_says_how_wrong_the_estimate_may_be():
    words = say(row(DENSE), row(TOPK, exposed_s=0.02, codec_s=0.01, source="roofline estimate"))
    # 10 s against 5 s in 100 steps leaves 50 ms a step on top of 10 ms: a factor of 6.
    assert words.endswith(
        "; its encode and decode cost (roofline estimate) could be 6.0 times as high before the lead is lost."
    )
    assert "could be" not in say(row(DENSE), row(TOPK, exposed_s=0.02, codec_s=0.01))


def test_compress_names_ties_and_faster_schemes_that_do_harm():
    words = say(
        row(DENSE),
        row(TOPK, exposed_s=0.03),
        row(QSGD, exposed_s=0.0305),
        row("randomk(density=0.001)", exposed_s=0.0, final=0.90),
        row("powersgd(rank=2)", exposed_s=0.06, final=0.90),
    )
    assert words.startswith(f"Compress: {TOPK} reaches")
    assert f"; {QSGD} is as fast within 2 %" in words
    assert "; randomk(density=0.001) is faster still, but its final test accuracy is 5.0 points lower (90.0 %)" in words
    assert "powersgd" not in words


def test_compress_only_if_a_worse_model_will_do():
    words = say(row(DENSE), row(TOPK, exposed_s=0.0, final=0.92), row(QSGD, exposed_s=0.2))
    assert words.startswith(
        f"Compress only if a worse model will do: {TOPK} reaches 90 % validation accuracy in 2.00 s"
    )
    assert words.endswith("; its final test accuracy is 3.0 points lower (92.0 %).")


def test_a_metric_to_be_lowered_is_harmed_by_raising_it():
    options = {"metric": "suboptimality", "higher_is_better": False, "target": 0.01}
    words = say(row(DENSE, final=0.005), row(TOPK, exposed_s=0.0, final=0.009), **options)
    assert words.startswith(
        f"Compress only if a worse model will do: {TOPK} reaches a validation suboptimality of 0.01 in 2.00 s"
    )
    assert words.endswith("; its final test suboptimality is 0.00900 instead of 0.00500.")
    words = say(row(DENSE, final=0.005), row(TOPK, exposed_s=0.0, final=0.005), **options)
    assert words.startswith("Compress: ")
    assert words.endswith("; its final test suboptimality is the same (0.00500).")


def test_no_difference():
    words = say(row(DENSE), row(TOPK, exposed_s=0.04, codec_s=0.0395))
    assert words == (
        "It makes no difference: ef(topk(density=0.01)) reaches 90 % validation accuracy in 9.95 s of virtual time, "
        "within 2 % of dense(dtype=fp32), because encoding and decoding cost 39.5 ms a step, nearly as much as "
        "the 40.0 ms of exposed communication that they save; its final test accuracy is the same (95.0 %)."
    )


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (1015, "It makes no difference: "),
        (985, "It makes no difference: "),
        (1025, "Do not compress: "),
        (975, "Compress: "),
    ],
)
def test_two_percent_are_a_tie_either_way(steps, words):
    assert say(row(DENSE, steps=1000), row(TOPK, steps=steps)).startswith(words)


def test_do_not_compress_because_there_is_nothing_to_save():
    assert say(row(DENSE, exposed_s=0.001), row(TOPK, exposed_s=0, codec_s=0.009), row(QSGD, codec_s=0.02)) == (
        "Do not compress: at best, ef(topk(density=0.01)) reaches 90 % validation accuracy in 2.90 s of virtual time, "
        "1.4 times as long as dense(dtype=fp32) takes, because only 5 % of the dense(dtype=fp32) step is exposed "
        "communication; its final test accuracy is the same (95.0 %)."
    )


def test_do_not_compress_because_of_the_steps():
    words = say(row(DENSE), row(TOPK, exposed_s=0.03, steps=400))
    assert words.startswith(f"Do not compress: {TOPK} reaches 90 % validation accuracy in 20.0 s")
    assert "because it needs 400 steps instead of 100, although its step is 2.0 times shorter; " in words
    words = say(row(DENSE), row(TOPK, steps=400))
    assert ", 4.0 times as long as dense(dtype=fp32) takes, because it needs 400 steps instead of 100; " in words


def test_do_not_compress_because_of_the_codec():
    words = say(row(DENSE), row(TOPK, exposed_s=0.07, codec_s=0.015, source="roofline estimate"))
    assert ", 5 % later than dense(dtype=fp32), because " in words
    assert "cost 15.0 ms a step, more than the 10.0 ms of exposed communication that they save; " in words
    # 10 of the 15 ms are what could be spent.
    assert "(roofline estimate) would have to be below 0.67 times as high for a lead." in words


def test_do_not_compress_because_it_exposes_as_much():
    words = say(row(DENSE), row(TOPK, exposed_s=0.12, codec_s=0.001, source="roofline estimate"))
    assert "because it exposes 120 ms of communication a step, no less than the 80.0 ms of dense(dtype=fp32); " in words
    assert words.endswith("its encode and decode cost (roofline estimate) rests on estimates.")


def test_do_not_compress_if_only_the_baseline_reaches_the_target():
    assert say(row(DENSE), row(TOPK, steps=None)) == (
        "Do not compress: no compressing scheme reached 90 % validation accuracy in 1000 steps, "
        "which dense(dtype=fp32) did in 10.0 s of virtual time."
    )


def test_do_not_compress_if_all_that_compress_diverged():
    assert say(row(DENSE), row(TOPK, status="diverged at step 37: loss is nan")) == (
        "Do not compress: no compressing scheme trained to the end; "
        "ef(topk(density=0.01)) diverged at step 37: loss is nan."
    )


def test_a_scheme_that_diverged_after_the_target_is_not_advised():
    fallen = row(QSGD, exposed_s=0, status="diverged at step 500: loss is nan", final=None)
    assert say(row(DENSE), fallen, row(TOPK, exposed_s=0.01)).startswith(f"Compress: {TOPK} reaches")


def test_compress_if_only_compressed_schemes_reach_the_target():
    assert say(row(DENSE, steps=None, final=0.89), row(QSGD), row(TOPK, exposed_s=0.0, final=0.91)) == (
        "Compress: ef(topk(density=0.01)) reaches 90 % validation accuracy in 2.00 s of virtual time, which no "
        "uncompressed scheme does in 1000 steps; its final test accuracy is 2.0 points higher (91.0 %)."
    )


def test_nobody_reaches_the_target():
    assert say(row(DENSE, steps=None), row(TOPK, steps=None)) == (
        "No scheme reached the target of 90 % validation accuracy in 1000 steps, so the time to it decides nothing."
    )
    fallen = row(QSGD, status="diverged at step 500: loss is nan", final=None)
    assert say(row(DENSE, steps=None), row(TOPK, steps=None), fallen) == (
        "No scheme reached the target of 90 % validation accuracy in 1000 steps, except that qsgd(bits=4) did and then "
        "diverged at step 500: loss is nan, so the time to it decides nothing."
    )


def test_no_baseline():
    assert say(row(TOPK, steps=50), row(QSGD)) == (
        "Cannot say: no uncompressed scheme (dense) was run, so there is nothing to compare with; "
        "ef(topk(density=0.01)) was the first to reach 90 % validation accuracy, in 5.00 s of virtual time."
    )
    assert say(row(DENSE, status="diverged at step 3: loss is nan"), row(TOPK, steps=None)) == (
        "Cannot say: dense(dtype=fp32) diverged at step 3: loss is nan, so there is nothing to compare with."
    )


def test_nothing_that_compresses():
    assert say(row(DENSE), row(BF16)) == ("Nothing to decide: no compressing scheme was run beside dense(dtype=fp32).")


def test_without_a_target_steps_are_compared():
    assert say(row(DENSE, steps=None), row(TOPK, exposed_s=0, steps=None), target=None) == (
        "Compress: a step with ef(topk(density=0.01)) takes 20.0 ms of virtual time, 5.0 times shorter than with "
        "dense(dtype=fp32), because 80 % of the dense(dtype=fp32) step is exposed communication; "
        "its final test accuracy is the same (95.0 %)."
    )
    words = say(row(DENSE), row(TOPK, codec_s=0.05, source="roofline estimate"), target=None)
    assert words.startswith(
        f"Do not compress: a step with {TOPK} takes 150 ms of virtual time, 1.5 times as long as with"
    )
    words = say(row(DENSE), row(TOPK, exposed_s=0.04, codec_s=0.02, source="roofline estimate"), target=None)
    assert words.endswith("could be 2.0 times as high before the lead is lost.")


def test_a_target_met_before_training_decides_nothing():
    words = verdict(compare(synthetic({DENSE: scheme(), TOPK: scheme(exposed_s=0.0)}, target=0.05)))
    assert words.startswith(f"Compress: a step with {TOPK} takes 14.0 ms of virtual time, 6.7 times shorter than with")


def test_a_verdict_is_one_sentence_on_a_synthetic_run():
    words = verdict(compare(synthetic({DENSE: scheme(), BF16: scheme(exposed_s=0.04), TOPK: scheme(exposed_s=0.002)})))
    assert words.startswith(f"Compress: {TOPK} reaches 90 % validation accuracy in 960 ms of virtual time, 3.4 times ")
    assert words.count(". ") == 0
    assert words.endswith(".")
