"""Python functions that compiled code does in a few instructions of LLVM, or by another function: by their types.

numba's own way, an overload that calls an intrinsic or a function, compiles a function of one line for every
combination of types, and takes as long for that as for a hundred lines.
"""

from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin


def operation(function, *kinds):
    """Register what a function of Python is in compiled code; kinds: the classes of its arguments, else any.

    What is decorated takes the numba types of the arguments and gives (signature, codegen) as an intrinsic does, or
    None where it has nothing to say: another operation or an overload may have.
    """

    def decorated(define):
        class Typed(AbstractTemplate):
            key = function

            def generic(self, args, kws):
                found = None if kws else define(*args)
                return None if found is None else found[0]

        infer_global(function, types.Function(Typed))

        @lower_builtin(function, *(kinds or (types.VarArg(types.Any),)))
        def lowered(context, builder, signature, args):
            _, codegen = define(*signature.args)
            return codegen(context, builder, signature, args)

        return define

    return decorated


def argument(k):
    """What an `operation` does that gives an argument as it is."""
    return lambda context, builder, signature, args: args[k]


def nothing_at_all(context, builder, signature, args):
    """What an `operation` does that gives None."""
    return context.get_dummy_value()


def call_of(function):
    """Let compiled code call another function in place of one of Python, with the same arguments.

    What is decorated takes the numba types of the arguments and gives the function to call.
    """

    def decorated(choose):
        class Typed(AbstractTemplate):
            key = function

            def generic(self, args, kws):
                chosen = self.context.resolve_value_type(choose(*args))
                found = self.context.resolve_function_type(chosen, args, kws)
                return found and signature(found.return_type, *found.args)

        infer_global(function, types.Function(Typed))

        @lower_builtin(function, types.VarArg(types.Any))
        def lowered(context, builder, signature, args):
            chosen = context.typing_context.resolve_value_type(choose(*signature.args))
            return context.get_function(chosen, signature)(builder, args)

        return choose

    return decorated
