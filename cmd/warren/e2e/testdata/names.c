/* names.c - what a libc makes of a name and of an address: names NAME|ADDRESS. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all, *a;
	char text[NI_MAXHOST];
	int err = argc == 2 ? getaddrinfo(argv[1], 0, &hints, &all) : EAI_FAIL;
	if (err) {
		puts(gai_strerror(err));
		return 1;
	}
	for (a = all; a; a = a->ai_next) {
		if (!getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST))
			puts(text);
		if (!getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, 0, 0, NI_NAMEREQD))
			puts(text);
	}
	return 0;
}
