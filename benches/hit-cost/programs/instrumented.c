/* Compiled with -finstrument-functions: a function for tracers that need the compiler's help. */
long t_instrumented(long number, const char *text)
{
    (void)text;
    return number + 1;
}
