"""frida_toggle PID FUNCTION COUNT: attaches an interceptor to a function, and detaches it, so often."""
import sys
import frida

PID, FUNCTION, COUNT = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])

CODE = """
const counter = Memory.alloc(8);
const code = new CModule(`
#include <gum/guminterceptor.h>
extern long counter;
void hit(GumCpuContext *cpu, gpointer data) { counter++; }
`, { counter });
const target = Process.mainModule.getExportByName('FUNCTION');
rpc.exports.toggle = function () {
    const listener = Interceptor.attach(target, code.hit);
    Interceptor.flush();
    listener.detach();
    Interceptor.flush();
    return counter.readU64().toString();
};
"""

session = frida.attach(PID)
script = session.create_script(CODE.replace("FUNCTION", FUNCTION))
script.load()
for n in range(COUNT):
    hits = script.exports_sync.toggle()
    print("toggles=%d" % (n + 1), flush=True)
print("hits=%s" % hits)
session.detach()
