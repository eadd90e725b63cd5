/* A library whose constructor calls the probed function. The count lives in the program that loads it. */
extern long plug_calls;

__attribute__((noipa)) int plug(int x)
{
    plug_calls++;
    return x * 5 + 1;
}

__attribute__((constructor)) static void started(void)
{
    plug(1);
}
