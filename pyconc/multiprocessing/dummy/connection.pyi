from multiprocessing.dummy.connection import *
