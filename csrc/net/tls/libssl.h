/* SPDX-License-Identifier: MIT */
/* The functions of the libssl that Python's own _ssl uses, found when the
 * program runs: to link another one would give two of them, with states of
 * their own. */
#ifndef PYC_NET_TLS_LIBSSL_H
#define PYC_NET_TLS_LIBSSL_H

#include "py/compat.h"

/* Those of openssl/types.h, by other names: the same in 1.1.1 and 3. */
typedef struct pyc_SSL pyc_SSL;
typedef struct pyc_BIO pyc_BIO;
typedef struct pyc_BIO_METHOD pyc_BIO_METHOD;
typedef void (*pyc_ex_new)(void *parent, void *value, void *data, int index,
                           long number, void *argument);

#define PYC_LIBSSL(X)                                                          \
    X(int, SSL_read, (pyc_SSL * ssl, void *data, int len))                     \
    X(int, SSL_write, (pyc_SSL * ssl, const void *data, int len))              \
    X(int, SSL_get_error, (const pyc_SSL *ssl, int result))                    \
    X(int, SSL_want, (const pyc_SSL *ssl))                                     \
    X(int, SSL_has_pending, (const pyc_SSL *ssl))                              \
    X(void *, SSL_get_ex_data, (const pyc_SSL *ssl, int index))                \
    X(void, SSL_set_bio, (pyc_SSL * ssl, pyc_BIO * in, pyc_BIO * out))         \
    X(void, ERR_clear_error, (void))                                           \
    X(unsigned long, ERR_peek_error, (void))                                   \
    X(int, CRYPTO_get_ex_new_index,                                            \
      (int class_index, long number, void *argument, pyc_ex_new make,          \
       void *copy, void *release))                                             \
    X(int, BIO_get_new_index, (void))                                          \
    X(pyc_BIO_METHOD *, BIO_meth_new, (int type, const char *name))            \
    X(int, BIO_meth_set_read,                                                  \
      (pyc_BIO_METHOD * method, int (*read)(pyc_BIO *, char *, int)))          \
    X(int, BIO_meth_set_write,                                                 \
      (pyc_BIO_METHOD * method, int (*write)(pyc_BIO *, const char *, int)))   \
    X(int, BIO_meth_set_ctrl,                                                  \
      (pyc_BIO_METHOD * method, long (*ctrl)(pyc_BIO *, int, long, void *)))   \
    X(pyc_BIO *, BIO_new, (const pyc_BIO_METHOD *method))                      \
    X(void, BIO_set_data, (pyc_BIO * bio, void *data))                         \
    X(void *, BIO_get_data, (pyc_BIO * bio))                                   \
    X(void, BIO_set_init, (pyc_BIO * bio, int init))                           \
    X(void, BIO_set_flags, (pyc_BIO * bio, int flags))                         \
    X(void, BIO_clear_flags, (pyc_BIO * bio, int flags))

typedef struct {
#define X(result, name, arguments) result(*name) arguments;
    PYC_LIBSSL(X)
#undef X
    pyc_BIO_METHOD *method;
} pyc_libssl;

#define PYC_SSL_READING 3 /* of SSL_want() */
#define PYC_SSL_ERROR_WANT_READ 2
#define PYC_SSL_ERROR_WANT_WRITE 3
#define PYC_SSL_ERROR_SYSCALL 5
#define PYC_SSL_ERROR_ZERO_RETURN 6
#define PYC_CRYPTO_EX_INDEX_SSL 0
#define PYC_BIO_TYPE_SOURCE_SINK 0x0400
#define PYC_BIO_CTRL_PENDING 10
#define PYC_BIO_CTRL_FLUSH 11
#define PYC_BIO_FLAGS_READ 0x01
#define PYC_BIO_FLAGS_RETRY 0x0f /* with the direction */
#define PYC_BIO_FLAGS_SHOULD_RETRY 0x08

/* NULL, without an exception, when there is none that we know. */
const pyc_libssl *pyc_libssl_get(void);

/* The SSL that this thread has made last since this was last called. */
pyc_SSL *pyc_libssl_take_newest(void);

/* The two ends of the method's BIOs, in direct.c: they have a pyc_tls_pipe for
 * data. */
int pyc_tls_pipe_read(pyc_BIO *bio, char *data, int len);
int pyc_tls_pipe_write(pyc_BIO *bio, const char *data, int len);
long pyc_tls_pipe_ctrl(pyc_BIO *bio, int command, long number, void *data);

#endif
