/* The library beside the plugin. */
double beside(double x);
double beside(double x)
{
    return 2 * x + 2;
}
