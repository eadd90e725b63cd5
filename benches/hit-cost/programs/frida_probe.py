"""Puts one of Frida's probes on an address of a running process.

    frida_probe.py PID ADDRESS c|js entry|both

Says `attached`, waits for a line, says `hits N`, and detaches.
"""

import sys

import frida

C = """
#include <gum/guminterceptor.h>
extern unsigned long hits;
void entered(GumInvocationContext *context) { hits++; }
void returned(GumInvocationContext *context) {}
"""

SCRIPTS = {
    "c": """
        const hits = Memory.alloc(8);
        const module = new CModule(%r, { hits });
        const probes = { entry: module.entered, both: { onEnter: module.entered, onLeave: module.returned } };
        Interceptor.attach(ptr('%s'), probes['%s']);
        Interceptor.flush();
        rpc.exports = { hits() { return hits.readU64().toNumber(); } };
    """,
    "js": """
        const unused = %r;
        let hits = 0;
        const entered = function (args) { hits++; };
        const probes = { entry: entered, both: { onEnter: entered, onLeave(value) {} } };
        Interceptor.attach(ptr('%s'), probes['%s']);
        Interceptor.flush();
        rpc.exports = { hits() { return hits; } };
    """,
}

process, address, language, at = sys.argv[1:]
session = frida.attach(int(process))
script = session.create_script(SCRIPTS[language] % (C, address, at))
script.load()
print("attached", flush=True)
sys.stdin.readline()
print("hits", script.exports_sync.hits(), flush=True)
session.detach()
