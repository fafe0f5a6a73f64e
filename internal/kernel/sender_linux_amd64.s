#include "textflag.h"

// noteSender handles a signal: its number is in DI, a siginfo in SI, a context in DX. See
// sender_handler.go.
TEXT noteSender<>(SB),NOSPLIT|NOFRAME|TOPFRAME,$0-0
	MOVL	8(SI), AX  // si_code
	MOVL	16(SI), R10 // si_pid
	SHLQ	$32, R10
	ORQ	AX, R10
	LEAQ	·sendersNoted(SB), AX
	MOVQ	R10, (AX)(DI*8)
	MOVQ	$1, R10
	LEAQ	·orderNoted(SB), AX
	LOCK
	XADDQ	R10, (AX)
	INCQ	R10
	MOVQ	R10, (AX)(DI*8)
	LEAQ	·handlersBefore(SB), AX
	MOVQ	(AX)(DI*8), AX
	JMP	AX

GLOBL	·noteSenderAddress(SB), NOPTR|RODATA, $8
DATA	·noteSenderAddress(SB)/8, $noteSender<>(SB)
