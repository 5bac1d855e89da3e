"""onnxruntime: inference by a model of one BatchNormalization, which takes channels second.

A table is that as it is, and so are channels-last arrays and Fortran tables by a view of their memory.
"""

import numpy as np
import onnx
import onnxruntime

import numbabn

from .contender import Contender
from .problem import EPS

IR_VERSION, OPSET = 8, 15  # of the model: old enough for every onnxruntime that is still in use


def contenders(task, p):
    x = p.planes(p.x)
    if task != "inference" or x is None or x.dtype.kind != "f":
        return []
    session, out = _session(p, x), p.planes(p.out)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu", 0, x.dtype.type, list(out.shape), out.ctypes.data)

    def into_out():
        session.run_with_iobinding(binding)
        return out

    return [
        Contender("onnxruntime", "", lambda: session.run(["y"], {"x": x})[0], _back(p)),
        Contender("onnxruntime", "out=", into_out, _back(p)),
    ]


def _back(p):
    def answer(y):
        return y[0].T if p.x.ndim == 2 and y.ndim == 3 else y.reshape(p.x.shape)

    return answer


def _session(p, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = numbabn.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # on cores that the next one needs
    return onnxruntime.InferenceSession(_model(p, x), options, providers=["CPUExecutionProvider"])


def _model(p, x):
    parameters = {"scale": np.ones(p.channels), "bias": np.zeros(p.channels), "mean": p.mean, "var": p.var}
    element = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    node = onnx.helper.make_node("BatchNormalization", ["x", *parameters], ["y"], epsilon=EPS)
    ends = [onnx.helper.make_tensor_value_info(name, element, x.shape) for name in ("x", "y")]
    constants = [onnx.numpy_helper.from_array(v.astype(x.dtype), name) for name, v in parameters.items()]
    graph = onnx.helper.make_graph([node], "batch_norm", ends[:1], ends[1:], constants)
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString()
