/* bcryptprimitives.dll, as far as Rust's standard library asks for it: Windows has had it since version 8, wine 8.0 has not.
 * The random numbers are those of RtlGenRandom, by the name that advapi32 has it under. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T len)
{
    return SystemFunction036(data, (ULONG)len);
}
