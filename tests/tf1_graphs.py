"""Graphs of TF 1.x in every spelling that the walk must see through, each built, saved and run by TensorFlow.

A builder makes a graph and says what to feed; the output is the tensor named `out`. Values fed for placeholders that
are not inputs (a phase, a probability) are given beside the inputs, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tf1_oracle import random_value

from normconvert.ir.model import Array

BATCH, TIME, INPUTS, UNITS = 3, 7, 5, 6
EPSILON = 0.05

Feeds = dict[str, Any]
GRAPHS: dict[str, Callable[[Any, np.random.Generator], Feeds]] = {}
OTHERS: dict[str, Callable[[Any, np.random.Generator], Feeds]] = {}


@dataclass(frozen=True)
class Saved:
    """A graph with its checkpoint, and TensorFlow's answer.

    Attributes:
        meta: the graph's file; the checkpoint has the same prefix.
        feeds: arrays by placeholder.
        output: the value of `out:0`.
    """

    meta: Path
    feeds: Feeds
    output: Array


def graph(build: Callable[[Any, np.random.Generator], Feeds]) -> Callable[[Any, np.random.Generator], Feeds]:
    """Lists a builder under its name."""
    GRAPHS[build.__name__] = build
    return build


def saved(name: str, folder: Path) -> Saved:
    """Builds, saves and runs one of the graphs."""
    build = {**GRAPHS, **OTHERS}[name]
    return run_graph(build, folder, np.random.default_rng(sum(map(ord, name))), resource="resource" in name)


def run_graph(
    build: Callable[[Any, np.random.Generator], Feeds],
    folder: Path,
    rng: np.random.Generator,
    *,
    resource: bool = False,
) -> Saved:
    """Builds, saves and runs a graph, with reference or resource variables."""
    import tensorflow

    tf = tensorflow.compat.v1
    flow, resources = tf.control_flow_v2_enabled(), tf.resource_variables_enabled()
    tf.disable_control_flow_v2()
    (tf.enable_resource_variables if resource else tf.disable_resource_variables)()
    try:
        with tf.Graph().as_default(), tf.Session() as session:
            feeds = build(tf, rng)
            session.run(tf.global_variables_initializer())
            for variable in tf.global_variables():
                variable.load(random_value(variable.op.name, tuple(variable.shape), rng), session)
            tf.train.Saver().save(session, str(folder / "model"))
            output = session.run("out:0", {f"{key}:0": value for key, value in feeds.items()})
            return Saved(folder / "model.meta", feeds, output)
    finally:
        (tf.enable_control_flow_v2 if flow else tf.disable_control_flow_v2)()
        (tf.enable_resource_variables if resources else tf.disable_resource_variables)()


def sequence(tf: Any, rng: np.random.Generator, *, shape: Any = (None, None, INPUTS)) -> tuple[Any, Feeds]:
    """A placeholder `x` of a sequence, and what to feed."""
    sizes = [size or (BATCH, TIME)[axis] for axis, size in enumerate(shape)]
    x = tf.placeholder(tf.float32, shape, name="x")
    return x, {"x": rng.normal(0.3, 1.0, sizes).astype(np.float32)}


def weights(tf: Any, name: str, *shape: int) -> Any:
    """A variable."""
    return tf.get_variable(name, shape)


def dense(tf: Any, x: Any, units: int, scope: str) -> Any:
    """`x @ kernel + bias` on two axes."""
    with tf.variable_scope(scope):
        return tf.nn.bias_add(tf.matmul(x, weights(tf, "kernel", int(x.shape[-1]), units)), weights(tf, "bias", units))


@graph
def folded_dense(tf: Any, rng: np.random.Generator) -> Feeds:
    """Time folded into the batch around a Dense layer, by numbers computed from the shape."""
    x, feeds = sequence(tf, rng)
    size = tf.shape(x)
    logits = dense(tf, tf.reshape(x, [-1, INPUTS]), 4, "logits")
    tf.nn.softmax(tf.reshape(logits, [size[0], size[1], 4]), name="out")
    return feeds


@graph
def output_left_folded(tf: Any, rng: np.random.Generator) -> Feeds:
    """The output stays `[batch * time, n]`."""
    x, feeds = sequence(tf, rng)
    tf.nn.relu(dense(tf, tf.reshape(x, [-1, INPUTS]), 4, "logits"), name="out")
    return feeds


@graph
def tensordot_dense(tf: Any, rng: np.random.Generator) -> Feeds:
    """tf.layers.dense on three axes: a tensordot."""
    x, feeds = sequence(tf, rng)
    product = tf.tensordot(x, weights(tf, "kernel", INPUTS, 4), [[2], [0]])
    tf.nn.elu(tf.nn.bias_add(product, weights(tf, "bias", 4)), name="out")
    return feeds


@graph
def attention(tf: Any, rng: np.random.Generator) -> Feeds:
    """Additive attention over time, as SeqSleepNet's: a score per step, softmax, weighted sum."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    w, b, u = weights(tf, "w", INPUTS, 4), weights(tf, "b", 4), weights(tf, "u", 4)
    v = tf.tanh(tf.matmul(tf.reshape(x, [-1, INPUTS]), w) + tf.reshape(b, [1, -1]))
    scores = tf.reshape(tf.matmul(v, tf.reshape(u, [-1, 1])), [-1, TIME])
    exps = tf.exp(scores)
    alphas = exps / tf.reshape(tf.reduce_sum(exps, 1), [-1, 1])
    tf.reduce_sum(x * tf.reshape(alphas, [-1, TIME, 1]), 1, name="out")
    return feeds


@graph
def embedding_last_step(tf: Any, rng: np.random.Generator) -> Feeds:
    """Rows of a table, and the last step of the sequence."""
    tokens = tf.placeholder(tf.int32, [None, None], name="x")
    rows = tf.nn.embedding_lookup(weights(tf, "table", 9, 5), tokens)
    tf.tanh(dense(tf, rows[:, -1], 4, "logits"), name="out")
    return {"x": rng.integers(0, 9, (BATCH, TIME)).astype(np.int32)}


@graph
def one_hot_transposed(tf: Any, rng: np.random.Generator) -> Feeds:
    """One-hot rows, time-major in between, and a mean over time."""
    tokens = tf.placeholder(tf.int64, [None, None], name="x")
    rows = tf.transpose(tf.one_hot(tokens, 8), [1, 0, 2])
    h = dense(tf, tf.reshape(rows, [-1, 8]), 4, "hidden")
    size = tf.shape(rows)
    tf.reduce_mean(tf.reshape(h, [size[0], size[1], 4]), 0, name="out")
    return {"x": rng.integers(0, 8, (BATCH, TIME))}


@graph
def convolutions(tf: Any, rng: np.random.Generator) -> Feeds:
    """A convolution over time as Conv2D with an axis of size 1, pooling, flattening."""
    x, feeds = sequence(tf, rng, shape=(None, 11, INPUTS))
    kernel = weights(tf, "kernel", 3, INPUTS, 4)
    h = tf.nn.conv2d(tf.expand_dims(x, 1), tf.expand_dims(kernel, 0), strides=[1, 1, 2, 1], padding="SAME")
    h = tf.nn.relu(tf.nn.bias_add(tf.squeeze(h, [1]), weights(tf, "bias", 4)))
    h = tf.squeeze(tf.nn.max_pool(tf.expand_dims(h, 2), [1, 2, 1, 1], [1, 2, 1, 1], "VALID"), [2])
    tf.sigmoid(dense(tf, tf.reshape(h, [-1, 3 * 4]), 2, "logits"), name="out")
    return feeds


@graph
def image_convolution(tf: Any, rng: np.random.Generator) -> Feeds:
    """A flat input seen as an image."""
    x, feeds = sequence(tf, rng, shape=(None, 7 * 5 * 2))
    h = tf.nn.conv2d(tf.reshape(x, [-1, 7, 5, 2]), weights(tf, "kernel", 3, 2, 2, 3), [1, 1, 1, 1], "VALID")
    h = tf.nn.avg_pool(h, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
    tf.nn.leaky_relu(tf.reshape(h, [-1, 3 * 2 * 3]), alpha=0.3, name="out")
    return feeds


def _population(tf: Any) -> tuple[Any, Any, Any, Any]:
    return tuple(weights(tf, name, INPUTS) for name in ("gamma", "beta", "moving_mean", "moving_variance"))  # type: ignore


@graph
def batch_norm_population(tf: Any, rng: np.random.Generator) -> Feeds:
    """tf.nn.batch_normalization with stored statistics."""
    x, feeds = sequence(tf, rng)
    gamma, beta, mean, variance = _population(tf)
    tf.identity(tf.nn.batch_normalization(x, mean, variance, beta, gamma, EPSILON), name="out")
    return feeds


@graph
def batch_norm_by_hand(tf: Any, rng: np.random.Generator) -> Feeds:
    """The formula written out, with a square root and without an offset."""
    x, feeds = sequence(tf, rng)
    gamma, _, mean, variance = _population(tf)
    tf.multiply(gamma, (x - mean) / tf.sqrt(variance + EPSILON), name="out")
    return feeds


@graph
def batch_norm_fused(tf: Any, rng: np.random.Generator) -> Feeds:
    """The fused operation at inference, on a sequence that gets a fourth axis."""
    x, feeds = sequence(tf, rng)
    gamma, beta, mean, variance = _population(tf)
    y, _, _ = tf.nn.fused_batch_norm(
        tf.expand_dims(x, 1), gamma, beta, mean, variance, epsilon=EPSILON, is_training=False
    )
    tf.squeeze(y, [1], name="out")
    return feeds


@graph
def batch_norm_fused_batch(tf: Any, rng: np.random.Generator) -> Feeds:
    """The fused operation with the moments of the batch."""
    x, feeds = sequence(tf, rng)
    gamma, beta, _, _ = _population(tf)
    y, _, _ = tf.nn.fused_batch_norm(tf.expand_dims(x, 2), gamma, beta, epsilon=EPSILON, is_training=True)
    tf.squeeze(y, [2], name="out")
    return feeds


@graph
def batch_norm_moments(tf: Any, rng: np.random.Generator) -> Feeds:
    """tf.nn.moments of the batch and the sequence, without scale."""
    x, feeds = sequence(tf, rng)
    mean, variance = tf.nn.moments(x, [0, 1])
    beta = weights(tf, "beta", INPUTS)
    tf.identity(tf.nn.batch_normalization(x, mean, variance, beta, None, EPSILON), name="out")
    return feeds


@graph
def batch_norm_conditional(tf: Any, rng: np.random.Generator) -> Feeds:
    """A condition on a fed phase; the branch of training would take the moments of the batch."""
    x, feeds = sequence(tf, rng)
    phase = tf.placeholder(tf.bool, [], name="is_training")
    gamma, beta, mean, variance = _population(tf)
    batch_mean, batch_variance = tf.nn.moments(x, [0, 1])
    used = tf.cond(phase, lambda: (batch_mean, batch_variance), lambda: (mean, variance))
    tf.identity(tf.nn.batch_normalization(x, *used, beta, gamma, EPSILON), name="out")
    return {**feeds, "is_training": False}


@graph
def phase_of_testing(tf: Any, rng: np.random.Generator) -> Feeds:
    """A phase that is true at inference."""
    x, feeds = sequence(tf, rng)
    phase = tf.placeholder(tf.bool, [], name="is_test")
    kernel = weights(tf, "kernel", INPUTS, INPUTS)
    tf.tensordot(tf.cond(phase, lambda: tf.tanh(x), lambda: tf.nn.relu(x)), kernel, [[2], [0]], name="out")
    return {**feeds, "is_test": True}


@graph
def layer_norm(tf: Any, rng: np.random.Generator) -> Feeds:
    """tf.contrib.layers.layer_norm over the features."""
    x, feeds = sequence(tf, rng)
    mean, variance = tf.nn.moments(x, [-1], keep_dims=True)
    gamma, beta = weights(tf, "gamma", INPUTS), weights(tf, "beta", INPUTS)
    tf.identity(tf.nn.batch_normalization(x, mean, variance, beta, gamma, EPSILON), name="out")
    return feeds


@graph
def dropout_keep_prob(tf: Any, rng: np.random.Generator) -> Feeds:
    """Dropout of TF up to 1.12, its probability fed."""
    x, feeds = sequence(tf, rng)
    keep = tf.placeholder(tf.float32, [], name="keep")
    mask = tf.floor(keep + tf.random_uniform(tf.shape(x), dtype=tf.float32))
    tf.multiply(tf.tanh(tf.divide(x, keep) * mask), weights(tf, "scale", INPUTS), name="out")
    return {**feeds, "keep": 1.0}


@graph
def dropout_keep_prob_as_rate(tf: Any, rng: np.random.Generator) -> Feeds:
    """Dropout of TF 1.13 to 1.15 with the probability of keeping fed: the rate is computed."""
    x, feeds = sequence(tf, rng)
    keep = tf.placeholder_with_default(np.float32(0.6), [], name="keep")
    rate = 1 - keep
    mask = tf.random_uniform(tf.shape(x)) >= rate
    dropped = x * (1 / (1 - rate)) * tf.cast(mask, tf.float32)
    tf.multiply(tf.tanh(dropped), weights(tf, "scale", INPUTS), name="out")
    return {**feeds, "keep": 1.0}


@graph
def resource_variables(tf: Any, rng: np.random.Generator) -> Feeds:
    """Variables read through handles, a table gathered from one."""
    tokens = tf.placeholder(tf.int32, [None, None], name="x")
    rows = tf.nn.embedding_lookup(weights(tf, "table", 9, 5), tokens)
    tf.tanh(dense(tf, tf.reshape(rows, [-1, 5]), 4, "logits"), name="out")
    return {"x": rng.integers(0, 9, (BATCH, TIME)).astype(np.int32)}


@graph
def partitioned_variables(tf: Any, rng: np.random.Generator) -> Feeds:
    """A kernel in three parts, which the checkpoint holds under one name."""
    x, feeds = sequence(tf, rng, shape=(None, INPUTS))
    with tf.variable_scope("big", partitioner=tf.fixed_size_partitioner(3)):
        kernel = tf.get_variable("kernel", [INPUTS, 4])
    tf.matmul(x, tf.convert_to_tensor(kernel), name="out")
    return feeds


@graph
def merges(tf: Any, rng: np.random.Generator) -> Feeds:
    """Parts of the features, joined and combined; a constant vector and a number."""
    x, feeds = sequence(tf, rng, shape=(None, None, 6))
    a, b, c = tf.split(x, 3, axis=2)
    joined = tf.concat([a * b, tf.maximum(b, c), x[:, :, 1:4]], -1)
    scale = tf.constant(np.linspace(0.5, 2.0, 7, dtype=np.float32))
    tf.square(1.5 - joined * scale + 2 * weights(tf, "offset", 7), name="out")
    return feeds


@graph
def squeezed_attention(tf: Any, rng: np.random.Generator) -> Feeds:
    """Scores with their last axis squeezed out, softmax over time, a batched product."""
    x, feeds = sequence(tf, rng)
    scores = tf.squeeze(tf.tensordot(x, weights(tf, "u", INPUTS, 1), [[2], [0]]), [2])
    alphas = tf.expand_dims(tf.nn.softmax(scores), 1)
    tf.squeeze(tf.matmul(alphas, x), [1], name="out")
    return feeds


# Recurrent layers: the cells are plain; what counts is what stands around them.


class RnnCell:
    """`tanh(x @ W + h @ U + b)` as `dynamic_rnn` takes a cell."""

    state_size = output_size = UNITS

    def __init__(self, tf: Any, scope: str = "cell") -> None:
        self.tf, self.scope = tf, scope

    def __call__(self, x: Any, h: Any, scope: Any = None) -> tuple[Any, Any]:
        """One step."""
        with self.tf.variable_scope(scope or self.scope, reuse=self.tf.AUTO_REUSE):
            w, u = weights(self.tf, "W", int(x.shape[-1]), UNITS), weights(self.tf, "U", UNITS, UNITS)
            h = self.tf.tanh(self.tf.matmul(x, w) + self.tf.matmul(h, u) + weights(self.tf, "b", UNITS))
        return h, h

    def zero_state(self, batch: Any, dtype: Any) -> Any:
        """Zeros."""
        return self.tf.zeros([batch, UNITS], dtype)


@graph
def rnn_time_major_input(tf: Any, rng: np.random.Generator) -> Feeds:
    """The input itself is time-major, and so is the output."""
    x, feeds = sequence(tf, rng)
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, dtype=tf.float32, time_major=True)
    tf.nn.relu(outputs, name="out")
    return feeds


@graph
def rnn_time_major_folded(tf: Any, rng: np.random.Generator) -> Feeds:
    """Time-major and folded before a Dense layer."""
    x, feeds = sequence(tf, rng)
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), tf.transpose(x, [1, 0, 2]), dtype=tf.float32, time_major=True)
    logits = dense(tf, tf.reshape(outputs, [-1, UNITS]), 4, "logits")
    size = tf.shape(x)
    tf.transpose(tf.reshape(logits, [size[1], size[0], 4]), [1, 0, 2], name="out")
    return feeds


@graph
def rnn_last_output(tf: Any, rng: np.random.Generator) -> Feeds:
    """The last step of the outputs, of a fixed length."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, dtype=tf.float32)
    last = tf.transpose(outputs, [1, 0, 2])[-1]
    tf.nn.softmax(dense(tf, last, 4, "logits"), name="out")
    return feeds


@graph
def rnn_gathered_last_output(tf: Any, rng: np.random.Generator) -> Feeds:
    """The last step as tutorials take it: time-major, then gathered by its number."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, dtype=tf.float32)
    outputs = tf.transpose(outputs, [1, 0, 2])
    tf.nn.softmax(dense(tf, tf.gather(outputs, int(outputs.shape[0]) - 1), 4, "logits"), name="out")
    return feeds


@graph
def rnn_sequence_and_final_state(tf: Any, rng: np.random.Generator) -> Feeds:
    """All outputs and the final state of one layer, which starts another."""
    x, feeds = sequence(tf, rng)
    outputs, final = tf.nn.dynamic_rnn(RnnCell(tf), x, dtype=tf.float32, scope="first")
    _, last = tf.nn.dynamic_rnn(RnnCell(tf), outputs, initial_state=final, dtype=tf.float32, scope="second")
    tf.nn.relu(dense(tf, last, 4, "logits"), name="out")
    return feeds


@graph
def rnn_bidirectional_last(tf: Any, rng: np.random.Generator) -> Feeds:
    """Final states of both directions, joined."""
    x, feeds = sequence(tf, rng)
    _, states = tf.nn.bidirectional_dynamic_rnn(RnnCell(tf), RnnCell(tf), x, dtype=tf.float32)
    tf.nn.relu(dense(tf, tf.concat(states, 1), 4, "logits"), name="out")
    return feeds


@graph
def rnn_learned_start(tf: Any, rng: np.random.Generator) -> Feeds:
    """The initial state is a variable, repeated for the batch."""
    x, feeds = sequence(tf, rng)
    start = tf.tile(weights(tf, "start", 1, UNITS), [tf.shape(x)[0], 1])
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, initial_state=start, dtype=tf.float32)
    tf.identity(outputs, name="out")
    return feeds


@graph
def rnn_fed_start(tf: Any, rng: np.random.Generator) -> Feeds:
    """The initial state is an input of the model."""
    x, feeds = sequence(tf, rng)
    start = tf.placeholder(tf.float32, [None, UNITS], name="start")
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, initial_state=start, dtype=tf.float32)
    tf.identity(outputs, name="out")
    return {**feeds, "start": rng.normal(0, 1, (BATCH, UNITS)).astype(np.float32)}


@graph
def rnn_unrolled(tf: Any, rng: np.random.Generator) -> Feeds:
    """Unrolled in Python, as static_rnn does: the steps unpacked before and packed after."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    cell, h, outputs = RnnCell(tf), tf.zeros([tf.shape(x)[0], UNITS]), []
    for step in tf.unstack(x, axis=1):
        output, h = cell(step, h)
        outputs.append(output)
    tf.nn.relu(dense(tf, tf.reshape(tf.stack(outputs, 1), [-1, UNITS]), 4, "logits"), name="out")
    return feeds


@graph
def rnn_unrolled_from_split(tf: Any, rng: np.random.Generator) -> Feeds:
    """The tutorials' way: transpose, fold, project, split by time; only the last output is used."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    folded = tf.reshape(tf.transpose(x, [1, 0, 2]), [-1, INPUTS])
    steps = tf.split(tf.nn.relu(dense(tf, folded, 4, "hidden")), TIME, 0)
    cell, h = RnnCell(tf), tf.zeros([BATCH, UNITS])
    for step in steps:
        _, h = cell(step, h)
    tf.nn.softmax(dense(tf, h, 4, "logits"), name="out")
    return feeds


@graph
def rnn_lengths(tf: Any, rng: np.random.Generator) -> Feeds:
    """Sequences of different lengths, in both directions; the outputs past the end are zeros."""
    x, feeds = sequence(tf, rng)
    lengths = tf.placeholder(tf.int32, [None], name="lengths")
    outputs, states = tf.nn.bidirectional_dynamic_rnn(
        RnnCell(tf), RnnCell(tf), x, sequence_length=lengths, dtype=tf.float32
    )
    tf.add(tf.concat(outputs, 2), tf.expand_dims(tf.concat(states, 1), 1), name="out")
    return {**feeds, "lengths": np.array([4, TIME, 2], np.int32)}


@graph
def rnn_whole_lengths(tf: Any, rng: np.random.Generator) -> Feeds:
    """Lengths that are computed from the shape say nothing."""
    x, feeds = sequence(tf, rng)
    size = tf.shape(x)
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, sequence_length=tf.fill([size[0]], size[1]), dtype=tf.float32)
    tf.identity(outputs[:, -1, :], name="out")
    return feeds


@graph
def convolution_before_rnn(tf: Any, rng: np.random.Generator) -> Feeds:
    """A strided convolution over a sequence of any length, then a recurrent layer."""
    x, feeds = sequence(tf, rng)
    kernel = weights(tf, "kernel", 3, INPUTS, 4)
    h = tf.nn.conv2d(tf.expand_dims(x, 1), tf.expand_dims(kernel, 0), strides=[1, 1, 2, 1], padding="SAME")
    h = tf.nn.relu(tf.nn.bias_add(tf.squeeze(h, [1]), weights(tf, "bias", 4)))
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), h, dtype=tf.float32)
    tf.reduce_max(outputs, 1, name="out")
    return feeds


@graph
def trained_classifier(tf: Any, rng: np.random.Generator) -> Feeds:
    """A whole training graph: labels, loss, accuracy, gradients, an optimizer, summaries."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    labels = tf.placeholder(tf.float32, [None, 4], name="y")
    keep = tf.placeholder(tf.float32, [], name="keep_prob")
    _, last = tf.nn.dynamic_rnn(RnnCell(tf), x, dtype=tf.float32)
    logits = dense(tf, tf.nn.dropout(last, keep_prob=keep), 4, "logits")
    tf.nn.softmax(logits, name="out")
    loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(logits=logits, labels=labels))
    loss += 0.01 * sum(tf.nn.l2_loss(variable) for variable in tf.trainable_variables())
    hits = tf.equal(tf.argmax(logits, 1), tf.argmax(labels, 1))
    tf.summary.scalar("accuracy", tf.reduce_mean(tf.cast(hits, tf.float32)))
    tf.summary.histogram("logits", logits)
    tf.train.AdamOptimizer().minimize(loss)
    return {**feeds, "keep_prob": 1.0, "y": np.eye(4, dtype=np.float32)[:BATCH]}


@graph
def trained_regression(tf: Any, rng: np.random.Generator) -> Feeds:
    """The prediction meets its labels in a squared difference; nothing but the loss reads it."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    labels = tf.placeholder(tf.float32, [None, 1], name="y")
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, dtype=tf.float32)
    prediction = tf.identity(dense(tf, outputs[:, -1], 1, "prediction"), name="out")
    loss = tf.reduce_mean(tf.square(prediction - labels))
    optimizer = tf.train.GradientDescentOptimizer(0.1)
    pairs = optimizer.compute_gradients(loss)
    optimizer.apply_gradients([(tf.clip_by_norm(gradient, 5.0), variable) for gradient, variable in pairs])
    return {**feeds, "y": np.ones((BATCH, 1), np.float32)}


@graph
def rnn_flattened(tf: Any, rng: np.random.Generator) -> Feeds:
    """All steps together feed a Dense layer: the length is part of the model."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, dtype=tf.float32)
    tf.nn.relu(dense(tf, tf.reshape(outputs, [-1, TIME * UNITS]), 4, "logits"), name="out")
    return feeds


@graph
def rnn_lengths_final_state(tf: Any, rng: np.random.Generator) -> Feeds:
    """Sequences of different lengths of which only the last real step is used, not the zeros after it."""
    x, feeds = sequence(tf, rng)
    lengths = tf.placeholder(tf.int32, [None], name="lengths")
    _, last = tf.nn.dynamic_rnn(RnnCell(tf), x, sequence_length=lengths, dtype=tf.float32)
    tf.nn.relu(dense(tf, last, 4, "logits"), name="out")
    return {**feeds, "lengths": np.array([4, TIME, 2], np.int32)}


@graph
def rnn_last_relevant_step(tf: Any, rng: np.random.Generator) -> Feeds:
    """Lengths from the data itself, and the last real step picked out of the outputs by its number."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    feeds["x"][0, 4:] = feeds["x"][2, 5:] = 0
    used = tf.sign(tf.reduce_max(tf.abs(x), 2))
    lengths = tf.cast(tf.reduce_sum(used, 1), tf.int32)
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, sequence_length=lengths, dtype=tf.float32)
    index = tf.range(0, tf.shape(outputs)[0]) * TIME + (lengths - 1)
    last = tf.gather(tf.reshape(outputs, [-1, UNITS]), index)
    tf.nn.softmax(dense(tf, last, 4, "logits"), name="out")
    return feeds


@graph
def rnn_token_lengths(tf: Any, rng: np.random.Generator) -> Feeds:
    """Lengths counted in tokens, where 0 is padding; the last real step picked by pairs."""
    tokens = tf.placeholder(tf.int32, [None, None], name="x")
    lengths = tf.reduce_sum(tf.sign(tf.abs(tokens)), 1)
    rows = tf.nn.embedding_lookup(weights(tf, "table", 9, INPUTS), tokens)
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), rows, sequence_length=lengths, dtype=tf.float32)
    pairs = tf.stack([tf.range(tf.shape(tokens)[0]), lengths - 1], axis=1)
    tf.nn.relu(dense(tf, tf.gather_nd(outputs, pairs), 4, "logits"), name="out")
    x = rng.integers(1, 9, (BATCH, TIME)).astype(np.int32)
    x[1, 3:] = 0
    return {"x": x}


@graph
def rnn_unrolled_both_ways(tf: Any, rng: np.random.Generator) -> Feeds:
    """static_bidirectional_rnn: the last joined output holds only the first step of the backward direction."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    steps, ways = tf.unstack(x, axis=1), []
    for way, read in (("fw", steps), ("bw", steps[::-1])):
        cell, h, outputs = RnnCell(tf, way), tf.zeros([tf.shape(x)[0], UNITS]), []
        for step in read:
            output, h = cell(step, h)
            outputs.append(output)
        ways.append(outputs)
    joined = [tf.concat(pair, 1) for pair in zip(ways[0], ways[1][::-1], strict=True)]
    tf.nn.softmax(dense(tf, joined[-1], 4, "logits"), name="out")
    return feeds


@graph
def rnn_fed_batch_size(tf: Any, rng: np.random.Generator) -> Feeds:
    """The size of the batch is fed, for the zeros of the initial state and a reshape."""
    x, feeds = sequence(tf, rng, shape=(None, TIME, INPUTS))
    batch = tf.placeholder(tf.int32, [], name="batch_size")
    _, last = tf.nn.dynamic_rnn(RnnCell(tf), x, initial_state=RnnCell(tf).zero_state(batch, tf.float32))
    tf.nn.relu(dense(tf, tf.reshape(last, [batch, UNITS]), 4, "logits"), name="out")
    return {**feeds, "batch_size": BATCH}


@graph
def steps_as_samples(tf: Any, rng: np.random.Generator) -> Feeds:
    """A recurrent layer over the frames of each epoch, then one over the epochs, as in hierarchical models."""
    x, feeds = sequence(tf, rng, shape=(None, 4, TIME, INPUTS))
    frames = tf.reshape(x, [-1, TIME, INPUTS])
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), frames, dtype=tf.float32, scope="frames")
    epochs = tf.reshape(tf.reduce_max(outputs, 1), [-1, 4, UNITS])
    tf.identity(tf.nn.dynamic_rnn(RnnCell(tf), epochs, dtype=tf.float32, scope="epochs")[0], name="out")
    return feeds


@graph
def rnn_skipping_stack(tf: Any, rng: np.random.Generator) -> Feeds:
    """Two cells in one loop of which the second reads the sequence as well: together they are one cell."""
    x, feeds = sequence(tf, rng)

    class Stack(RnnCell):
        state_size, output_size = (UNITS, UNITS), 2 * UNITS

        def zero_state(self, batch: Any, dtype: Any) -> Any:
            return (super().zero_state(batch, dtype),) * 2

        def __call__(self, x: Any, state: Any, scope: Any = None) -> Any:
            below, _ = RnnCell(tf, "below")(x, state[0])
            above, _ = RnnCell(tf, "above")(tf.concat([x, below], 1), state[1])
            return tf.concat([below, above], 1), (below, above)

    outputs, _ = tf.nn.dynamic_rnn(Stack(tf), x, dtype=tf.float32)
    tf.nn.relu(dense(tf, outputs[:, -1], 4, "logits"), name="out")
    return feeds


@graph
def trained_with_logarithm(tf: Any, rng: np.random.Generator) -> Feeds:
    """A cross-entropy by hand: the loss reads the logarithm of the probabilities, held away from 0."""
    x, feeds = sequence(tf, rng, shape=(None, INPUTS))
    labels = tf.placeholder(tf.float32, [None, 4], name="y")
    probabilities = tf.nn.softmax(dense(tf, x, 4, "logits"), name="out")
    logarithm = tf.log(tf.clip_by_value(probabilities, 1e-10, 1.0))
    tf.train.GradientDescentOptimizer(0.1).minimize(-tf.reduce_mean(tf.reduce_sum(labels * logarithm, 1)))
    return {**feeds, "y": np.eye(4, dtype=np.float32)[:BATCH]}


@graph
def trained_tagger(tf: Any, rng: np.random.Generator) -> Feeds:
    """A conditional random field over the logits: its loop sums over all sequences of tags, for the loss alone."""
    x, feeds = sequence(tf, rng)
    labels = tf.placeholder(tf.int32, [None, None], name="y")
    size = tf.shape(x)
    logits = tf.reshape(dense(tf, tf.reshape(x, [-1, INPUTS]), 4, "tags"), [size[0], size[1], 4], name="out")
    transitions = tf.expand_dims(weights(tf, "transitions", 4, 4), 0)

    class Forward(RnnCell):
        state_size = output_size = 4

        def __call__(self, x: Any, alphas: Any, scope: Any = None) -> Any:
            new = x + tf.reduce_logsumexp(tf.expand_dims(alphas, 2) + transitions, [1])
            return new, new

    _, alphas = tf.nn.dynamic_rnn(Forward(tf), logits[:, 1:], initial_state=logits[:, 0], dtype=tf.float32)
    score = tf.reduce_sum(tf.one_hot(labels, 4) * logits, [1, 2])
    tf.train.AdamOptimizer().minimize(tf.reduce_mean(tf.reduce_logsumexp(alphas, 1) - score))
    return {**feeds, "y": np.zeros((BATCH, TIME), np.int32)}


@graph
def mixture(tf: Any, rng: np.random.Generator) -> Feeds:
    """The parameters of a mixture in one value, which the loss takes apart."""
    x, feeds = sequence(tf, rng, shape=(None, INPUTS))
    target = tf.placeholder(tf.float32, [None, 1], name="y")
    parameters = tf.identity(dense(tf, x, 9, "mixture"), name="out")
    shares, means, widths = tf.split(parameters, 3, 1)
    likely = tf.nn.softmax(shares) * tf.exp(-tf.square((target - tf.tanh(means)) / tf.exp(widths)))
    tf.train.AdamOptimizer().minimize(-tf.reduce_mean(tf.log(tf.reduce_sum(likely, 1))))
    return {**feeds, "y": np.ones((BATCH, 1), np.float32)}


def other(build: Callable[[Any, np.random.Generator], Feeds]) -> Callable[[Any, np.random.Generator], Feeds]:
    """Lists a builder whose graph has no certain answer or no model; found by name only."""
    OTHERS[build.__name__] = build
    return build


@other
def dropout_constant(tf: Any, rng: np.random.Generator) -> Feeds:
    """Dropout with a constant probability: random whenever it runs."""
    x, feeds = sequence(tf, rng)
    dropped = tf.nn.dropout(x, rate=0.4)
    tf.multiply(dropped, weights(tf, "scale", INPUTS), name="out")
    return feeds


@other
def dropout_in_a_loop(tf: Any, rng: np.random.Generator) -> Feeds:
    """DropoutWrapper with a constant probability: the constant stands inside the loop."""
    x, feeds = sequence(tf, rng)

    class Dropped(RnnCell):
        def __call__(self, x: Any, h: Any, scope: Any = None) -> Any:
            keep = tf.constant(0.6)
            mask = tf.floor(keep + tf.random_uniform(tf.shape(x), dtype=tf.float32))
            return super().__call__(tf.divide(x, keep) * mask, h, scope)

    tf.identity(tf.nn.dynamic_rnn(Dropped(tf), x, dtype=tf.float32)[0], name="out")
    return feeds


@other
def rnn_noisy_start(tf: Any, rng: np.random.Generator) -> Feeds:
    """The initial state is drawn at random."""
    x, feeds = sequence(tf, rng)
    start = tf.random_normal([tf.shape(x)[0], UNITS], stddev=0.1)
    outputs, _ = tf.nn.dynamic_rnn(RnnCell(tf), x, initial_state=start, dtype=tf.float32)
    tf.identity(outputs, name="out")
    return feeds


@other
def decoder(tf: Any, rng: np.random.Generator) -> Feeds:
    """A loop that chooses a token and goes on with it."""
    x, feeds = sequence(tf, rng, shape=(None, UNITS))
    table, storage = weights(tf, "table", 4, UNITS), tf.TensorArray(tf.float32, 3)

    def body(step: Any, token: Any, h: Any, storage: Any) -> Any:
        h, _ = RnnCell(tf)(tf.nn.embedding_lookup(table, token), h)
        logits = tf.matmul(h, table, transpose_b=True)
        return step + 1, tf.cast(tf.argmax(logits, 1), tf.int32), h, storage.write(step, logits)

    start = [tf.constant(0), tf.fill([tf.shape(x)[0]], 1), x, storage]
    stored = tf.while_loop(lambda step, *_: step < 3, body, start)[3]
    tf.transpose(stored.stack(), [1, 0, 2], name="out")
    return feeds


@other
def batch_matmul_of_samples(tf: Any, rng: np.random.Generator) -> Feeds:
    """A product that mixes the samples of the batch."""
    x, feeds = sequence(tf, rng, shape=(None, INPUTS))
    tf.nn.relu(tf.matmul(x * weights(tf, "scale", INPUTS), x, transpose_b=True), name="out")
    return feeds


@other
def unknown_operation(tf: Any, rng: np.random.Generator) -> Feeds:
    """A function that the equation language does not have."""
    x, feeds = sequence(tf, rng, shape=(None, INPUTS))
    tf.cos(x * weights(tf, "scale", INPUTS), name="out")
    return feeds


@other
def two_ends(tf: Any, rng: np.random.Generator) -> Feeds:
    """Two heads with weights of their own."""
    x, feeds = sequence(tf, rng, shape=(None, INPUTS))
    tf.nn.softmax(dense(tf, x, 3, "one"), name="first")
    tf.nn.softmax(dense(tf, x, 2, "two"), name="second")
    tf.identity(x, name="out")
    return feeds
