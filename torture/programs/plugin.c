/* An object that is loaded and unloaded while it is probed. */
__attribute__((noipa)) long plugin_work(long n) { return n * 3 + 1; }
__attribute__((constructor)) static void begin(void) { plugin_work(1); }
__attribute__((destructor)) static void end(void) { plugin_work(2); }
