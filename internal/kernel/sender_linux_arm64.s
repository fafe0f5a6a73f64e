#include "textflag.h"

// noteSender handles a signal: its number is in R0, a siginfo in R1, a context in R2. See
// sender_handler.go.
TEXT noteSender<>(SB),NOSPLIT|NOFRAME|TOPFRAME,$0-0
	MOVWU	8(R1), R3  // si_code
	MOVWU	16(R1), R4 // si_pid
	ORR	R4<<32, R3, R3
	MOVD	$·sendersNoted(SB), R5
	MOVD	R3, (R5)(R0<<3)
	MOVD	$·orderNoted(SB), R5
next:
	LDAXR	(R5), R3
	ADD	$1, R3
	STLXR	R3, (R5), R4
	CBNZ	R4, next
	MOVD	R3, (R5)(R0<<3)
	MOVD	$·handlersBefore(SB), R5
	MOVD	(R5)(R0<<3), R5
	JMP	(R5)

GLOBL	·noteSenderAddress(SB), NOPTR|RODATA, $8
DATA	·noteSenderAddress(SB)/8, $noteSender<>(SB)
